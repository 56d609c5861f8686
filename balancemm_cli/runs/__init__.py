"""The run folder and its one schema: what is written while a run is trained, and read ever after."""
