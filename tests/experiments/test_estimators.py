"""Tests of experiments.estimators: one-line errors, and results of another measurement."""

import json
import types

import pytest

from experiments import estimators
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.metagrad.signal import Interval
from mass_jax.training.estimators import EstimatorRow
from tests.commands import in_process

ROW = EstimatorRow("SAMA()", 1.0, 0.5, 8, 0, {"leave_one_out": Interval(0.5, 0.0, 1.0, 4)})


@pytest.fixture
def flags(monkeypatch):
    """Sets the flags of the command, which tests of other commands define differently in this process."""

    def given(**values):
        defaults = {"score": 0.5, "seed": 0, "repeats": 3, "estimators": ["sama"]}
        monkeypatch.setattr(estimators, "FLAGS", types.SimpleNamespace(**defaults | values))

    return given


def test_results_are_reused_for_other_inner_optimizers(flags, tmp_path):
    flags()
    results = {"sgd 0.2, K=2": {"exact": ROW, "sama": ROW}}
    estimators.write_results(tmp_path, estimators.header_of(Config(), 4), results)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png", ".svg"}
    header = estimators.header_of(Config(inner_optimizer="adam", inner_steps=3), 4)
    assert estimators.read_results(tmp_path / "estimators.json", header) == results


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"lora_rank": 2}, {}, "lora_rank=4, now it is 2"),
        ({}, {"estimators": ["sama", "t1t2"]}, r"estimators=\['sama'\], now it is \['sama', 't1t2'\]"),
        ({}, {"repeats": 1}, "repeats=3, now it is 1"),
    ],
)
def test_results_of_other_settings_are_refused(flags, tmp_path, changes, given, message):
    flags()
    path = tmp_path / "estimators.json"
    path.write_text(json.dumps(estimators.header_of(Config(), 4) | {"settings": {}}))
    flags(**given)
    with pytest.raises(UserError, match=f"measured with {message}; give another --workdir"):
        estimators.read_results(path, estimators.header_of(Config(**changes), 4))


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {"sgd": {"exact": {}}}}'])
def test_damaged_results_are_refused(flags, tmp_path, text):
    flags()
    (tmp_path / "estimators.json").write_text(text)
    with pytest.raises(UserError, match="is damaged; remove it"):
        estimators.read_results(tmp_path / "estimators.json", estimators.header_of(Config(), 4))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--settings=sgd:x"], "error: --settings: 'sgd:x' is not OPTIMIZER:RATE"),
        (["--estimators=sama,truncated"], "error: --estimators: 'truncated' is not truncated:STEPS"),
        (["--outer=verifier"], "error: --outer='verifier' is not measured; use gold"),
        (["--reward=gain"], "error: --reward=gain is not measured: this command computes meta-gradients"),
        (["--repeats=0"], "error: flag --repeats=0"),
    ],
    ids=["settings", "estimators", "outer", "reward", "repeats"],
)
def test_estimators_reports_invalid_flags(given, message, tmp_path):
    done = in_process("estimators", f"--workdir={tmp_path / 'a'}", *given)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(message)
    assert not list(tmp_path.iterdir())
