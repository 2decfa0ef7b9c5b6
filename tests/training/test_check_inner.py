"""The inner optimizer is checked before training."""

import logging
from inspect import signature

import jax
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig
from mass_jax.metagrad import support
from mass_jax.method import adapt, outer_optimizer
from mass_jax.runtime.metrics import read_metrics
from mass_jax.training import train
from mass_jax.training.architecture import models
from mass_jax.training.check_inner import check_inner_optimizer
from mass_jax.training.components import model_directory
from mass_jax.training.learners import check_outer_optimizers
from tests.small_models import components


def check(**changes):
    config = Config(**changes)
    loop, _ = models(config, LlamaConfig.from_directory(model_directory("tiny")))
    check_inner_optimizer(config, loop)


def test_unusable_optimizer_is_refused_in_one_line():
    with pytest.raises(UserError) as caught:
        check(inner_optimizer="contrib.cocob", inner_steps=3)
    assert str(caught.value).startswith(
        "--inner_optimizer='contrib.cocob' with --inner_steps=3: the meta-gradient through this optimizer is wrong at"
    )
    assert "\n" not in str(caught.value)


def test_scale_invariance_is_logged_unless_ignored(caplog):
    changes = {"inner_optimizer": "clip_by_global_norm(1e-3) | sgd"}
    with caplog.at_level(logging.WARNING):
        check(**changes, on_weak_signal="ignore")
        assert not caplog.records
        check(**changes)
        check(**changes)  # equal expressions are one optimizer
    [record] = caplog.records
    assert "is scale-invariant at gradient entries near 0.03" in record.getMessage()


def test_equal_expressions_share_one_optimizer():
    first = adapt.fixed_inner_optimizer("clip(1.0) | sgd", 0.2, 1e-8)
    assert adapt.fixed_inner_optimizer("clip( 1.0 )|sgd()", 0.2, 1e-8) is first
    assert adapt.fixed_inner_optimizer("clip(1.0) | sgd", 0.1, 1e-8) is not first


def test_default_outer_optimizer_is_that_of_earlier_versions():
    params = {"w": jax.numpy.ones((3, 2), jax.numpy.float32)}
    before = optax.apply_if_finite(
        optax.chain(optax.clip_by_global_norm(0.5), optax.adam(optax.linear_schedule(1e-3, 0.0, 7))), 2**31 - 1
    )

    def program(optimizer):
        with jax.numpy_dtype_promotion("standard"):
            return str(jax.make_jaxpr(lambda g: optimizer.update(g, optimizer.init(params), params))(params))

    assert program(outer_optimizer.make(1e-3, 0.5, 7)) == program(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy_optimizer": "adafactor"}, "--policy_optimizer='adafactor': it keeps a state of shape"),
        ({"scorer_optimizer": "lbfgs"}, "--scorer_optimizer='lbfgs': the optimizer's update needs 'value'"),
        ({"solver_grpo_optimizer": "clip"}, "--solver_grpo_optimizer='clip': character 1: clip needs max_delta"),
    ],
)
def test_unusable_outer_optimizers_name_their_flag(changes, message):
    with pytest.raises(UserError) as caught:
        check_outer_optimizers(Config(**changes))
    assert str(caught.value).startswith(message)


def test_outer_optimizers_accept_expressions():
    check_outer_optimizers(Config(policy_optimizer="lion", scorer_optimizer="clip(1.0) | adamw(weight_decay=0.1)"))


EXPRESSIONS = (
    "clip_by_global_norm(1.0) | adamw(b1=0.8, eps_root=auto)",
    "sgd(cosine_decay_schedule(0.2, 4))",
    "contrib.sam(sgd, sgd(0.01))",
    "scale_by_yogi | scale_by_learning_rate",
)
WHOLE = tuple(name for name, make in support.factories().items() if "learning_rate" in signature(make).parameters)
"""Optimizers of optax and optax.contrib, without the parts of chains; tests/metagrad/test_building.py has those too."""


@pytest.mark.slow
@pytest.mark.parametrize("text", [*EXPRESSIONS, *WHOLE])
def test_training_takes_two_steps_with_finite_rewards_or_refuses(text, tmp_path):
    """The flags that experiments.train reads, and the training that it calls; about 30 seconds each."""
    changes = {"outer": "gold", "steps": 2, "warmup_steps": 0, "lora_targets": ("q_proj",), "on_weak_signal": "ignore"}
    refusal = None
    try:
        made = components(**changes, inner_optimizer=text)
        with jax.numpy_dtype_promotion("standard"):  # as in the commands
            train.train_mass(made, made.problems(0).train, seed=0, outer="gold", workdir=tmp_path, stop=runtime.Stop())
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert "\n" not in refusal
        assert text not in EXPRESSIONS
        assert not (text in mg.SUPPORT and mg.SUPPORT[text].exact)
        return
    rows = read_metrics(tmp_path / "metrics.jsonl", 2)
    assert [row["tasks_not_finite"] for row in rows] == [0, 0]
    assert any(row["reward_std"] > 0 for row in rows)
