"""Tests for mass_jax.runtime.trackers.trackio, with its local store read back."""

import importlib.util
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mass_jax.runtime.trackers import open_trackers
from tests.tracked_runs import SETTINGS, train

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None, reason="trackio requires pillow<13, so it is not in the extra test"
)
NAMES = ("trackio",)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Trackio's store and a workdir with a run that was killed and resumed, and a report."""
    path = tmp_path_factory.mktemp("tiny")
    plt.imsave(path / "accuracy.png", np.zeros((3, 5, 3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(path / "store"))  # read when trackio is imported
        from trackio.sqlite_storage import SQLiteStorage
    for start, stop in ((0, 5), (3, 7)):
        with train(path, start, stop, NAMES):
            pass
    with open_trackers(NAMES, path / "report", path, SETTINGS) as trackers:
        trackers.table("results", [{"row": "Base", "accuracy": 0.5}])
        trackers.figure("accuracy", path / "accuracy.png")
        trackers.text("example", "<b>2</b>")
    return SQLiteStorage, path


def logs(store, run):
    """Name and rows of a run."""
    storage, workdir = store
    identity = json.loads((workdir / run / "trackers.json").read_text())["trackio"]
    name = f"{workdir.name}/{run}-{identity}"
    return name, storage.get_logs("mass_jax", name)


def test_resumed_run_is_one_curve(store):
    name, rows = logs(store, "seed0/mass")
    assert [(row["step"], row["reward"], row["kl"]) for row in rows] == [(i, i / 2, 0.25) for i in range(7)]
    assert not any("scorer_auc" in row for row in rows)
    assert store[0].get_run_config("mass_jax", name)["methods"] == ["base", "mass"]


def test_report_has_the_table_figures_and_literal_text(store):
    _, rows = logs(store, "report")
    found = {name: value for row in rows for name, value in row.items()}
    assert found["results"]["_value"] == [{"row": "Base", "accuracy": 0.5}]
    assert found["example"]["_value"] == "    <b>2</b>"
    assert found["accuracy"]["_type"] == "trackio.image"
