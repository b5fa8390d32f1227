"""Reports: one page that compares runs, arm by arm, with intervals over seeds."""
