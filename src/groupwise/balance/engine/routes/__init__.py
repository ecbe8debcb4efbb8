"""The ways from losses to `.grad`: what each costs, what it needs to keep, and what is exact about it."""
