"""Tasks: problems, prompts, parsers and verification, in plain Python without JAX."""
