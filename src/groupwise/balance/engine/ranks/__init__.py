"""Several processes: what they agree on before an update, and what each has of the parameters."""
