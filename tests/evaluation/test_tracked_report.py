"""Tests for mass_jax.evaluation.tracked_report, with the report of docs/results/tiny."""

import json
import pathlib
import shutil

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from mass_jax.config import Config
from mass_jax.evaluation.tracked_report import as_text, track_report

TINY = pathlib.Path(__file__).parent.parent.parent / "docs" / "results" / "tiny"
STAGE = {
    "examples": [{"text": "P: 1+1", "score": 0.5, "reward": 0.25, "useful": True}, {"text": "?", "rejected": "format"}],
    "unadapted": "3",
    "adapted": "4",
}
WORKED = {"id": "7", "problem": "2+2", "answer": "4", "subject": "sums", "stages": {"before": STAGE, "after": STAGE}}


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "report").mkdir()
    for figure in TINY.glob("*.png"):
        shutil.copy(figure, tmp_path / "report")
    return tmp_path


def test_report_in_tensorboard(workdir):
    table = json.loads((TINY / "table1.json").read_text())
    track_report(Config(tracker=("tensorboard",)), workdir, table, [WORKED])
    events = EventAccumulator(str(workdir / "report" / "tensorboard")).Reload()
    assert set(events.Tags()["tensors"]) == {"config", "results", "accuracy", "training", "examples/7"}
    (result,) = events.Tensors("results")
    lines = result.tensor_proto.string_val[0].decode().splitlines()
    rows = len(table["methods"]) + len(table["references"])
    assert lines[0] == "| row | column | accuracy | low | high | problems |"
    assert len(lines) == 2 + rows * len(table["columns"])


def test_report_without_trackers_writes_nothing(workdir):
    before = sorted(workdir.rglob("*"))
    track_report(Config(), workdir, {}, [])
    assert sorted(workdir.rglob("*")) == before


def test_worked_example_as_text():
    before = as_text(WORKED).split("After training")[0]
    assert before == (
        "Problem: 2+2\nCorrect answer: 4\n\nBefore training\nExample (score 0.5, reward 0.25):\nP: 1+1\n"
        "Example (rejected: format):\n?\nAnswer without adaptation:\n3\nAnswer with adaptation:\n4\n\n"
    )
