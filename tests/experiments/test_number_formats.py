"""Tests of experiments.benchmarks.number_formats on the embedded model."""

import contextlib
import json
import types

import jax
import numpy as np
import pytest

from experiments.benchmarks import number_formats
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.training import validation
from mass_jax.training.components import assemble
from mass_jax.training.inner_setting import InnerSetting
from tests.commands import in_process

CONFIG = Config(num_train_problems=30, num_examples=3, inner_steps=1, adjoint="first_order")
HALF = "--half_products --base_dtype=bfloat16"
ADAPTER = "--base_dtype=bfloat16 --adapter_product_dtype=bfloat16"


@pytest.mark.parametrize("name", number_formats.FORMATS)
@pytest.mark.parametrize(
    "given", [{}, {"half_products": True}, {"base_dtype": "bfloat16", "compute_dtype": "bfloat16"}]
)
def test_format_does_not_depend_on_the_given_one(name, given):
    assert number_formats.formatted(Config(**given), name) == number_formats.formatted(Config(), name)


def test_rewards_in_float32_are_those_of_the_run(monkeypatch):
    """A bfloat16 format changes them a little, and every format has the same examples and adapters."""
    monkeypatch.setattr(number_formats, "FLAGS", types.SimpleNamespace(score=0.5))
    monkeypatch.setattr(
        number_formats, "FORMATS", {name: number_formats.FORMATS[name] for name in (number_formats.FLOAT32, HALF)}
    )
    key, mesh = jax.random.key(0), runtime.make_mesh("auto", jax.devices()[:1])
    with runtime.use_mesh(mesh), runtime.stop_on_signals() as stop:
        with contextlib.closing(assemble(CONFIG, mesh)) as components:
            problems, rollouts = components.problems(0).train[:2], components.rollouts
            weights, setting = components.pretrained(), InnerSetting.of(CONFIG, rollouts.loop)
            synthetic, _ = rollouts.write_examples(weights, problems, jax.random.split(key, 2), CONFIG.num_examples)
            drawn = validation.drawn(rollouts, weights, problems, synthetic, None, key, 0.5)
            gold = rollouts.dialogue.gold(problems).text
            tasks = validation.tasks_of(rollouts, weights, drawn, gold, np.ones((2, 1), np.float32))
            adaptation = validation.adaptation_of(rollouts, setting)
            expected = number_formats.estimator_runs.rewards_jit(
                adaptation, weights, (np.float32(setting.rate), np.float32(setting.eps_root)), tasks
            )
        found = number_formats.measure(CONFIG, mesh, problems, synthetic, setting, key, stop)
    assert np.abs(found[number_formats.FLOAT32]).max() > 0
    np.testing.assert_allclose(
        found[number_formats.FLOAT32], np.asarray(expected) * drawn.kept_NM, rtol=1e-5, atol=1e-8
    )
    (cosines,) = number_formats.cosines(found)[HALF].values()
    assert min(value for value in cosines if value is not None) > 0.99
    assert np.any(found[HALF] != found[number_formats.FLOAT32])


def test_cosines_refer_to_float32_and_to_the_same_activations():
    rng = np.random.default_rng(0)
    rewards = {name: rng.normal(size=(2, 3)) for name in number_formats.FORMATS}
    for reward_NM in rewards.values():
        reward_NM[1, 1:] = 0  # one accepted example
    found = number_formats.cosines(rewards)
    a, b = rewards[ADAPTER][0], rewards[number_formats.BFLOAT16][0]
    assert found[ADAPTER]["--base_dtype=bfloat16"][0] == pytest.approx(
        a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6
    )
    assert found[ADAPTER]["float32"][1] is None
    assert {name: list(values) for name, values in found.items()} == {
        HALF: ["float32"],
        "--base_dtype=bfloat16": ["float32"],
        ADAPTER: ["float32", "--base_dtype=bfloat16"],
    }


def test_table_has_mean_and_least_of_known_cosines(tmp_path):
    found = {"sgd": {HALF: {"float32": [1.0, None, 0.5]}, ADAPTER: {"float32": [1.0], "--base_dtype=bfloat16": [0.25]}}}
    header = {"problems": 3, "examples": 6, "model": "tiny", "device": "cpu"}
    number_formats.write(tmp_path, header, found)
    text = (tmp_path / "number_formats.md").read_text()
    assert f"| sgd | `{HALF}` | 0.75000, 0.50000 |  |" in text
    assert f"| sgd | `{ADAPTER}` | 1.00000, 1.00000 | 0.25000, 0.25000 |" in text
    assert json.loads((tmp_path / "number_formats.json").read_text())["settings"] == found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: --workdir is missing; pass a directory, such as --workdir=runs/number_formats"),
        (["--settings=adam:x"], "--settings: 'adam:x' is not OPTIMIZER:RATE[:EPS_ROOT[:STEPS]], like adam:0.03:1e-6"),
        (["--reward=path"], "error: --reward=path is not measured: this command computes meta-gradients, which are"),
    ],
    ids=["workdir", "settings", "reward"],
)
def test_invalid_flags_are_named(flags, message):
    done = in_process("benchmarks.number_formats", *flags)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
