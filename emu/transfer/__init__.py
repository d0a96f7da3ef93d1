"""What moves KV bytes between machines, and verifies them."""
