"""A trained network meets inputs of another kind and sixty labels: which of its layers to tune."""
