"""Tools that make the files of the project: the embedded model, SmolLM2, redrawn figures."""
