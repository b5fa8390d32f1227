"""A run on disk: its folder, its metrics, its checksums, and the commands that made it."""
