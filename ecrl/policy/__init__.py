"""The policy model: how it is built, packed, scored and written."""
