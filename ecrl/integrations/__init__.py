"""The strategies inside other trainers: TRL, verl, prime-rl. See docs/integrations.md."""
