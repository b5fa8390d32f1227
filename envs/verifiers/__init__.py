"""Processes that verify answers, with time limits."""
