"""Tests for mass_jax.runtime.trackers.opening: errors, ids and processes."""

import json

import pytest

from mass_jax import lazy
from mass_jax.runtime.metrics import read_metrics
from mass_jax.runtime.trackers import base, check_installed, opening
from tests.tracked_runs import train

NAMES = ("tensorboard",)


def test_tracker_that_fails_warns_once_and_the_run_goes_on(tmp_path, caplog):
    run = tmp_path / "seed0" / "mass"
    run.mkdir(parents=True)
    (run / "tensorboard").write_text("not a directory")
    with train(tmp_path, 0, 4, NAMES):
        pass
    assert len(read_metrics(run / "metrics.jsonl")) == 4
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("--tracker=tensorboard stopped, the run goes on without it: FileExistsError")
    assert "\n" not in message


def test_tracker_that_fails_later_warns_once(tmp_path, caplog):
    with train(tmp_path, 0, 2, NAMES) as trackers:
        trackers._guarded[0]._tracker.close(failed=False)  # as if its file was lost
        trackers.log(2, {"reward": 1.0})
        trackers.log(3, {"reward": 1.0})
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_errors_hide_secrets(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    error = RuntimeError("bad key 0123456789 for hf_abc\nmore")
    assert opening.one_line(error) == "RuntimeError: bad key *** for ***"


def test_missing_package_names_the_extra(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(lazy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(lazy.MissingExtraError, match=r'--tracker=wandb needs .*; run: pip install "mass_jax\[wandb\]"'):
        check_installed(("wandb",))
    with train(tmp_path, 0, 2, NAMES):
        pass
    assert 'run: pip install "mass_jax[tensorboard]"' in caplog.text


def test_only_the_first_process_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "is_first", lambda: False)
    with train(tmp_path, 0, 2, NAMES):
        pass
    assert [path.name for path in (tmp_path / "seed0" / "mass").iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("damaged", ["{", "[]", '{"tensorboard": "../x"}'])
def test_damaged_ids_start_new_runs(tmp_path, caplog, damaged):
    path = tmp_path / "seed0" / "mass" / "trackers.json"
    path.parent.mkdir(parents=True)
    path.write_text(damaged)
    with train(tmp_path, 0, 2, NAMES):
        pass
    assert "trackers start new runs" in caplog.text
    assert len(json.loads(path.read_text())["tensorboard"]) == 12


def test_solver_grpo_has_the_names_of_trl():
    kinds = ("cut_off", "entropy", "length", "length_min", "length_max")
    of_attempts = base.scalars({f"attempts_{kind}": 1.0 for kind in kinds})
    assert of_attempts == base.scalars({f"examples_{kind}": 1.0 for kind in kinds})
    assert {*of_attempts} == {*base.TRL_NAMES.values()} - {"kl"}
