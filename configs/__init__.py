"""The YAML config groups that Hydra composes. No code lives here."""
