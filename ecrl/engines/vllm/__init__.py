"""vLLM as an engine: colocated in the trainer's process, or as separate servers."""
