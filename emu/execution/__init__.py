"""What computes a machine's steps."""
