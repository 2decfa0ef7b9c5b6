"""The signal of rewards on the testbed with the pretrained generator."""

import contextlib

import jax
import numpy as np
import pytest

from mass_jax import metagrad as mg
from mass_jax.config import Config
from mass_jax.metagrad import signal
from mass_jax.training import validation
from mass_jax.training.components import assemble
from mass_jax.training.inner_setting import InnerSetting

LEAVE_ONE_OUT = signal.Options(finite_differences=False, add_one=False, directions=0, precision=False)
PROBLEMS = 16


@pytest.fixture(scope="module")
def drawn():
    """The components of `--preset=tiny`, and examples for training problems."""
    with contextlib.closing(assemble(Config())) as components:
        rollouts, weights = components.rollouts, components.pretrained()
        problems = components.problems(0).train[:PROBLEMS]
        key = jax.random.fold_in(jax.random.key(0), 5)
        yield components, validation.draw(rollouts, weights, problems, num_examples=12, key=key, score=0.5)


def report(drawn, setting):
    components, examples = drawn
    return validation.validate_setting(
        components.rollouts, components.pretrained(), examples, setting, "gold", 1, LEAVE_ONE_OUT
    )


@pytest.mark.slow
def test_sgd_carries_signal(drawn):
    found = report(drawn, InnerSetting("sgd", 0.2, 1e-8, 2))
    assert found["leave_one_out/spearman"] > 0.9
    assert found["zero_sum_index"] > 0.2
    assert mg.findings(found) == ()


def test_adam_needs_eps_root(drawn):
    """With a small one, rewards only redistribute and say little about the effect of an example."""
    weak = report(drawn, InnerSetting("adam", 0.03, 1e-8, 2))
    assert weak["zero_sum_index"] < 0.01
    assert {finding.name for finding in mg.findings(weak)} == {"zero-sum", "uncorrelated"}
    good = report(drawn, InnerSetting("adam", 0.03, 1e-2, 2))
    assert good["leave_one_out/spearman"] > 0.9
    assert mg.findings(good) == ()
    assert np.isfinite(good["gain"])
