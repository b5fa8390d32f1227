"""The second study: what is run, how it is packed, and how its claims are judged."""
