"""Runs: configuration, training, evaluation, and many of them at once."""
