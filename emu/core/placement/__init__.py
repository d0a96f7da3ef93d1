"""Global policies: which machine prefills a request and which decodes it."""
