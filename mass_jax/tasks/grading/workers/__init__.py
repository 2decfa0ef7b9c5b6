"""Worker processes with hard limits, in which symbolic answers are compared."""
