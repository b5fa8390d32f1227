"""Many processes: how they are started, how the policy is spread over them, how they save it."""
