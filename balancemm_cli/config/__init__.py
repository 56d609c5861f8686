"""What a run is: its recipe, its whole configuration, and suites of runs."""
