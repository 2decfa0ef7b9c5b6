"""Metrics survive kills; progress suits where it goes."""

import json
import math

from absl import logging

from mass_jax.runtime import MetricsLog, progress
from mass_jax.runtime.metrics import read_metrics


def test_rows_come_back_and_nan_becomes_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", next_step=0)
    log.write(0, {"loss": 1.5, "auc": math.nan})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 1.5, "auc": None}]


def test_resuming_drops_lost_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, next_step=0)
    for step in range(5):
        log.write(step, {"loss": step})
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    log = MetricsLog(path, next_step=3)
    log.write(3, {"loss": 30})
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(0, 0), (1, 1), (2, 2), (3, 30)]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_progress_counts_from_where_it_resumes_and_logs_the_last_step(caplog):
    logging.set_verbosity(logging.INFO)
    with caplog.at_level("INFO", logger="absl"):
        for i, report in progress("train", 3, 6):
            report(loss=float(i))
    assert "train 6/6 loss=5" in caplog.text
