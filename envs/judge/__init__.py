"""Rewards that a language model gives, by a rubric: `env.py` is `ecrl/Judge-v0`."""
