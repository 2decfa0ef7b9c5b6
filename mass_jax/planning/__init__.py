"""Estimates memory per chip: compiles every phase of a run ahead of time for devices that are not attached."""
