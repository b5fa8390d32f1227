"""Sweeps: the cells of arms × seeds, each a run of its own."""
