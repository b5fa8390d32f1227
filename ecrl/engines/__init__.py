"""Rollout engines: what draws completions."""
