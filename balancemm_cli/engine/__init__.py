"""Training and evaluating: one run, or many at once."""

PRELOADED = ["balancemm_cli.engine.launch", "balancemm_cli.cli"]
"""What the process has imported that those of runs are forked from: torch and all else, once and not once per run."""
