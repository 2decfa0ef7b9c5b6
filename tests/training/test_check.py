"""The check of the reward signal at the first training step, with the embedded model."""

import jax
import pytest

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.metagrad.signal import Interval, SignalReport
from mass_jax.runtime.metrics import read_metrics
from mass_jax.training import check, train
from mass_jax.training.components import assemble

SIZES = {"steps": 2, "warmup_steps": 1, "tasks_per_step": 8, "num_examples": 4, "num_test_examples": 2}


def report(correlation, zero_sum):
    numbers = {"leave_one_out/spearman": correlation, "zero_sum_index": zero_sum, "signal_share": 1.0}
    return SignalReport(8, 32, 0, {name: Interval(v, v, v, 8) for name, v in numbers.items()}, {})


def test_describe_good_signal_in_two_lines():
    first, second = check.describe("mass gold", report(0.97, 0.4), {})
    assert "correlation with leave-one-out 0.97" in first
    assert second == "mass gold: the reward predicts the effect of the examples"


def test_describe_weak_signal_names_flags_and_alternatives():
    weak = check.describe("mass", report(0.35, 0.001), {"adam 0.03, eps_root 0.01, K=2": report(0.9, 0.3)})
    assert len(weak) == 3
    assert "zero-sum (zero_sum_index 0.001, should be at least 0.1)" in weak[1]
    assert "uncorrelated" in weak[1]
    assert "change --inner_eps_root or" in weak[1]
    assert "eps_root 0.01, K=2: correlation 0.90, zero-sum index 0.300" in weak[2]


def test_training_with_sign_like_adam_stops_on_request(tmp_path):
    config = Config(
        **SIZES, inner_optimizer="adam", inner_lr=0.03, on_weak_signal="error", num_train_problems=16, outer="gold"
    )
    components = assemble(config)
    problems = components.problems(0).train
    stop = runtime.Stop()
    with jax.numpy_dtype_promotion("standard"), pytest.raises(UserError, match=r"weak reward: .*zero-sum") as caught:
        train.train_mass(components, problems, seed=0, outer="gold", workdir=tmp_path, stop=stop)
    assert "--inner_eps_root" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(read_metrics(tmp_path / "metrics.jsonl"))
