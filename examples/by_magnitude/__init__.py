"""Rates by the size of the weights: tensors are grouped by their mean absolute value, anew as it changes."""
