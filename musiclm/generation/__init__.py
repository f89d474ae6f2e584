"""New music from a trained model: sampling, constraints, controls, prompts, infilling and provenance."""
