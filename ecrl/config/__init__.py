"""The configuration: its schema, how it is composed, what is refused."""
