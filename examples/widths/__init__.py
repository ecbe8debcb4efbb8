"""One rate for four widths: factors of shape, beside none."""
