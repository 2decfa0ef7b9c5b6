"""Tests for mass_jax.runtime.trackers.wandb, with the real library offline and its own files read back."""

import json
import struct

import matplotlib.pyplot as plt
import numpy as np
import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from mass_jax.runtime.trackers import open_trackers
from tests.tracked_runs import SETTINGS, train

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir with a run that was interrupted and resumed, and a report."""
    path = tmp_path_factory.mktemp("tiny")
    plt.imsave(path / "accuracy.png", np.zeros((3, 5, 3)))
    environment = {"WANDB_MODE": "offline", "WANDB_CONSOLE": "off", "WANDB_API_KEY": KEY, "WANDB_SILENT": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (environment | {"WANDB_DISABLE_GIT": "true", "WANDB_X_DISABLE_STATS": "true"}).items():
            patch.setenv(name, value)
        for start, stop in ((0, 5), (3, 6)):
            with train(path, start, stop, ("wandb",)):
                pass
        with open_trackers(("wandb",), path / "report", path, SETTINGS) as trackers:
            trackers.table("results", [{"row": "Base", "accuracy": 0.5}])
            trackers.figure("accuracy", path / "accuracy.png")
            trackers.text("example", "<b>2</b>")
        wandb.teardown()
    return path


def records(directory):
    """Records of an offline run: a header of 7 bytes, then checksum, length, type and bytes of each."""
    (path,) = directory.glob("*.wandb")
    data, position = path.read_bytes(), 7
    while position < len(data):
        _, length, kind = struct.unpack_from("<IHB", data, position)
        assert kind == 1  # a whole record
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data[position + 7 : position + 7 + length])
        yield record
        position += 7 + length


def history(directory):
    """Logged values, one dict per step."""
    rows = [r.history.item for r in records(directory) if r.WhichOneof("record_type") == "history"]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row} for row in rows]


def opened(directory):
    """The record of the run, with its configuration."""
    run = next(r.run for r in records(directory) if r.WhichOneof("record_type") == "run")
    return run, {item.key: json.loads(item.value_json) for item in run.config.update}


def test_resumed_run_keeps_its_id_and_has_the_whole_curve(workdir):
    directories = sorted((workdir / "seed0" / "mass" / "wandb").glob("offline-run-*"))
    identity = json.loads((workdir / "seed0" / "mass" / "trackers.json").read_text())["wandb"]
    assert len(directories) == 2
    for directory in directories:
        run, config = opened(directory)
        assert (run.run_id, run.project, run.run_group) == (identity, "mass_jax", workdir.name)
        assert run.display_name == f"{workdir.name}/seed0/mass"
        assert config["methods"] == ["base", "mass"]
    rows = history(directories[1])
    assert [(row["_step"], row["reward"], row["kl"]) for row in rows] == [(i, i / 2, 0.25) for i in range(6)]
    assert not any("scorer_auc" in row for row in rows)


def test_report_has_the_table_figures_and_escaped_text(workdir):
    (directory,) = (workdir / "report" / "wandb").glob("offline-run-*")
    logged = {name for row in history(directory) for name in row}
    assert {"results/path", "accuracy/path", "example/path"} <= logged
    files = {path.suffix: path for path in (directory / "files" / "media").rglob("*") if path.is_file()}
    assert files[".html"].read_text() == "<pre>&lt;b&gt;2&lt;/b&gt;</pre>"
    assert files[".png"].read_bytes() == (workdir / "accuracy.png").read_bytes()
    assert json.loads(files[".json"].read_text())["data"] == [["Base", 0.5]]


def test_no_file_holds_the_key(workdir):
    files = [path for path in workdir.rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not any(KEY.encode() in path.read_bytes() for path in files)
