"""A network that knows photographs learns clothes in grey: how much of it to change, and how fast."""
