"""The commands; run each with `python -m experiments.NAME`."""

from experiments import streams

streams.repair()
