"""Environments that are made of other environments."""
