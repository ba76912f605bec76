"""Many messages at once, from files or from the rows of an engine: read, checked, packed, sent and remembered."""
