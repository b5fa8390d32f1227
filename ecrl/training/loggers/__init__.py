"""Where a run's numbers go beside ``metrics.jsonl``: Lightning's loggers, one service a file."""
