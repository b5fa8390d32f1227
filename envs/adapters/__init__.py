"""Environments of other frameworks here, and ours there: one framework a file."""
