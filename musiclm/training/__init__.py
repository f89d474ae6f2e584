"""Training runs: configuration, setup, the optimization loop and the run folder."""
