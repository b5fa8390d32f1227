"""Entropy-controlled reinforcement learning of reasoning language models."""

__version__ = "0.1.0"
