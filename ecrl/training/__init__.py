"""One run: Lightning module and data module, checks before it, checkpoints after it."""
