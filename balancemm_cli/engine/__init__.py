"""Training and evaluating: one run, or many at once."""
