"""Batch -> seconds: how long a forward pass takes on one machine."""
