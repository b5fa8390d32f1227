"""Plays episodes and turns their trajectories into training batches."""
