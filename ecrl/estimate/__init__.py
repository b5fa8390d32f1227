"""Estimates a run before it starts: memory of each GPU, work and time of an iteration."""
