"""Callbacks that only look: metrics, covariance, samples, progress."""
