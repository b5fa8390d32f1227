"""What a run will need before it is started: memory of each GPU, work and time of an iteration."""
