"""Several task losses, one update: `Balancer(method).backward({"seg": loss, "depth": loss})`."""
