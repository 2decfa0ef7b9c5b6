"""Tests for mass_jax.runtime.trackers.tensorboard, read back with TensorBoard's own reader."""

import matplotlib.pyplot as plt
import numpy as np
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator

from mass_jax.runtime.trackers import open_trackers
from tests.tracked_runs import SETTINGS, train

NAMES = ("tensorboard",)


def curves(workdir):
    """Scalars by name, as lists of step and value."""
    events = event_accumulator.EventAccumulator(str(workdir / "seed0" / "mass" / "tensorboard")).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def tensors(directory, name):
    """Byte strings under a name, after the purges that TensorBoard applies."""
    events = plugin_event_accumulator.EventAccumulator(str(directory)).Reload()
    return [list(event.tensor_proto.string_val) for event in events.Tensors(name)]


def test_killed_and_resumed_run_is_one_curve(tmp_path):
    with train(tmp_path, 0, 5, NAMES):  # closed after the resume, as a killed process does not close its trackers
        with train(tmp_path, 3, 6, NAMES):
            pass
        found = curves(tmp_path)
    # kl_to_start has TRL's name; scorer_auc is not finite.
    assert found == {"reward": [(step, step / 2) for step in range(6)], "kl": [(step, 0.25) for step in range(6)]}
    ((config,),) = tensors(tmp_path / "seed0" / "mass" / "tensorboard", "config")
    assert b'    "methods": [' in config


def test_tracker_that_is_added_later_gets_the_earlier_steps(tmp_path):
    train(tmp_path, 0, 4, ())
    assert [path.name for path in (tmp_path / "seed0" / "mass").iterdir()] == ["metrics.jsonl"]
    with train(tmp_path, 3, 6, NAMES):
        pass
    assert [step for step, _ in curves(tmp_path)["reward"]] == list(range(6))


def test_report_has_the_table_figures_and_literal_text(tmp_path):
    plt.imsave(tmp_path / "accuracy.png", np.zeros((3, 5, 3)))
    for accuracy in (0.25, 0.5):  # a second report replaces the first
        with open_trackers(NAMES, tmp_path / "report", tmp_path, SETTINGS) as trackers:
            trackers.table("results", [{"row": "a|b", "accuracy": accuracy}])
            trackers.figure("accuracy", tmp_path / "accuracy.png")
            trackers.text("example", "<b>2 + 2</b>\n# 4")
    events = tmp_path / "report" / "tensorboard"
    assert tensors(events, "results") == [[b"| row | accuracy |\n|---|---|\n| a\\|b | 0.5 |"]]
    assert tensors(events, "example") == [[b"    <b>2 + 2</b>\n    # 4"]]
    assert tensors(events, "accuracy") == [[b"5", b"3", (tmp_path / "accuracy.png").read_bytes()]]


def test_nothing_is_written_without_values(tmp_path):
    with open_trackers(NAMES, tmp_path, tmp_path, SETTINGS):
        pass
    assert list(tmp_path.iterdir()) == []
