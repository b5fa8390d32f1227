"""A run on disk: its folder, its metrics, its files."""
