"""A network that solves Burgers' equation: three losses that pull at the same weights."""
