"""The log of a manager: where it is, and the store that opens it."""
