"""Builds the components of a run from a `Config`, samples rollouts and runs the training loops."""
