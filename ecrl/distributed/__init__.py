"""Runs of several processes: launching, communication, sharding, and distributed checkpoints."""
