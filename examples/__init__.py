"""Jobs that people know, each beside its honest baseline: `python -m examples` runs them all (examples/README.md)."""
