"""Comparison of inner optimizers: directories, finished rows and the table; nothing is trained."""

import dataclasses
import json

import pytest

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import inner_comparison
from mass_jax.evaluation.inner_comparison import ComparisonRow, directory_name
from mass_jax.training.inner_setting import with_setting

VALUES = {"leave_one_out": [0.5], "zero_sum_index": [0.25], "right": [90.0], "tt_ss": [40.0], "mass": [80.0]}
VALUES |= {"reward_auc": [0.75], "useful_share": [0.5]}


def finish(workdir, config, text, **changes):
    """Writes a finished row of a setting, with the settings that its directory would have."""
    fixed = {"methods": inner_comparison.METHODS, "outer": "verifier", "on_weak_signal": "ignore"}
    trained = dataclasses.replace(with_setting(text, config), **fixed | changes)
    directory = workdir / directory_name(with_setting(text, config), config.inner_steps)
    runtime.claim_workdir(directory, trained.to_json())
    row = ComparisonRow(text, 1, VALUES, ["zero-sum"])
    (directory / "row.json").write_text(json.dumps(dataclasses.asdict(row)))
    return directory


def compare(config, texts, workdir):
    return inner_comparison.compare(config, texts, workdir, None, runtime.Stop())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nadam:0.1", "nadam_0.1_1e-5_seed3"),
        ("nadam:0.1::7", "nadam_0.1_1e-5_K7_seed3"),
        ("sgd:2e-1:auto:5", "sgd_0.2_auto_K5_seed3"),
        ("clip(1.0) | sgd:0.1", "clip-1.0-sgd-bf8bde3c_0.1_1e-5_seed3"),
        ("adam:0.03:1e-8:4", "adam_0.03_1e-8_seed3"),
    ],
)
def test_directory_names_every_replaced_setting(text, name):
    config = Config(inner_eps_root="1e-5", inner_steps=4, seeds=(3,))
    assert directory_name(with_setting(text, config), config.inner_steps) == name


def test_finished_rows_are_kept(tmp_path):
    config = Config(seeds=(5, 6), inner_eps_root="1e-3")
    texts = ["adam:0.1", "adam:0.1::3"]
    for seed in config.seeds:
        for text in texts:
            finish(tmp_path, dataclasses.replace(config, seeds=(seed,)), text, signal_every=4)
    rows = compare(config, texts, tmp_path)
    assert [(row.label, row.seeds, row.values["mass"]) for row in rows] == [(text, 2, [80.0, 80.0]) for text in texts]
    assert len(json.loads((tmp_path / "inner_optimizers.json").read_text())) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [({"gamma": 0.5}, "gamma=0.5, now it is 0.1"), ({"inner_steps": 9}, "inner_steps=9, now it is 2")],
)
def test_finished_rows_of_other_settings_are_refused(tmp_path, change, message):
    config = Config(seeds=(1,))
    finish(tmp_path, config, "momentum:0.1", **change)
    with pytest.raises(UserError, match=f"momentum_0.1_auto_seed1 was started with {message}") as caught:
        compare(config, ["momentum:0.1"], tmp_path)
    assert "\n" not in str(caught.value)


def test_finished_rows_of_unknown_settings_are_refused(tmp_path):
    config = Config(seeds=(1,))
    (finish(tmp_path, config, "yogi:0.1") / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json, so its settings are unknown"):
        compare(config, ["yogi:0.1"], tmp_path)
