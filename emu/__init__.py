"""Rehearses clusters that serve large language models with prefill and decode on machines of their own (Splitwise)."""

__version__ = "0.1.0"
