"""Programming problems: the policy writes a program, and unit tests judge it in a sandbox."""
