"""The tasks of the reasoning-gym package."""
