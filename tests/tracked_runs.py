"""Metrics for tests of trackers, logged as training logs them."""

import math

from mass_jax.runtime import MetricsLog
from mass_jax.runtime.trackers import open_trackers

SETTINGS = {"steps": 6, "methods": ["base", "mass"]}


def train(workdir, start, stop, names):
    """Logs steps of WORKDIR/seed0/mass; returns the open trackers."""
    run = workdir / "seed0" / "mass"
    run.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(run / "metrics.jsonl", next_step=start)
    trackers = open_trackers(names, run, workdir, SETTINGS, start, log.kept)
    for step in range(start, stop):
        row = {"reward": step / 2, "kl_to_start": 0.25, "scorer_auc": math.nan}
        log.write(step, row)
        trackers.log(step, row)
    return trackers
