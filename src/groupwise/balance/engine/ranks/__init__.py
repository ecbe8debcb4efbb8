"""Several processes: what they agree on, and the ways to the gradients of their joint batch."""
