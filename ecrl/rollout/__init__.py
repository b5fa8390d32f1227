"""From problems to trajectories to training batches."""
