"""Rollout engines: they generate the completions that the policy is trained on."""
