"""Experiment trackers beside metrics.jsonl: TensorBoard, Weights & Biases and Trackio, each imported on first use."""

from mass_jax.runtime.trackers.base import NAMES, Run, Tracker
from mass_jax.runtime.trackers.opening import Trackers, check_installed, open_trackers

__all__ = ["NAMES", "Run", "Tracker", "Trackers", "check_installed", "open_trackers"]
