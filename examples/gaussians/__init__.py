"""A picture as some hundred Gaussians, which are split and pruned in mid-run: parameters that are replaced."""
