"""Tests for mass_jax.runtime.metrics."""

import json
import math

from absl import logging

from mass_jax.runtime import MetricsLog, progress
from mass_jax.runtime.metrics import read_metrics


def test_metrics_write_nan_as_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", next_step=0)
    log.write(0, {"loss": 1.5, "auc": math.nan})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 1.5, "auc": None}]


def test_metrics_resume_drops_unsaved_steps(tmp_path):
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


def test_read_metrics_reports_damage(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": step / 2}) for step in range(6)]
    lines[1] = lines[1][:9]
    lines[2] = '{"step": 2, "loss": "low"}'
    lines[4] = "[]"
    path.write_text("\n".join(lines) + '\n{"step": 6')
    assert [row["step"] for row in read_metrics(path, steps=8)] == [0, 3, 5]
    assert f"{path}:2: not JSON" in caplog.text
    assert "the first of 4 damaged lines" in caplog.text
    assert f"{path} lacks 5 of 8 steps, the first is 1" in caplog.text


def test_metrics_resume_reports_lost_steps(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(3)))
    MetricsLog(path, next_step=3)
    assert caplog.text == ""
    MetricsLog(path, next_step=10)
    assert f"{path} lacks 7 of 10 steps, the first is 3" in caplog.text


def test_metrics_resume_keeps_one_row_per_step(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    steps = [0, 0, 1, 2, 1, 2, 3]
    path.write_text("".join(json.dumps({"step": step, "loss": i}) + "\n" for i, step in enumerate(steps)))
    MetricsLog(path, next_step=3)
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(0, 1), (1, 4), (2, 5)]
    assert "3 rows repeat a step" in caplog.text


def test_progress_logs_last_step(caplog):
    logging.set_verbosity(logging.INFO)
    with caplog.at_level("INFO", logger="absl"):
        for i, report in progress("train", 3, 6):
            report(loss=float(i))
    assert "train 6/6 loss=5" in caplog.text
