"""Plays environments of other frameworks here, and ours there; one file for each framework."""
