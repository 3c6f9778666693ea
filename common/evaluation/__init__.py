"""How models are measured: each metric against the reference it is proved by."""
