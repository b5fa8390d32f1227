"""vLLM as an engine: in the trainer's process, or as servers of its own."""
