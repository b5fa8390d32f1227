"""Procedural tasks: problems drawn from a seed, with worked solutions."""
