"""Memory policies: their order, the choice of the first that fits, and the choice of a run that resumes."""

import dataclasses
import itertools
import json

import jax
import pytest

from mass_jax.config import Config
from mass_jax.planning import policies
from mass_jax.planning.chips import GIB, Chip
from mass_jax.planning.phases import Iteration, evaluation_of
from mass_jax.planning.shapes import shape_of
from mass_jax.runtime import make_mesh
from mass_jax.training.components import assemble, check_tasks

LONG = Config(max_prompt_tokens=384, max_answer_tokens=128, memory="auto:24")


def iteration(config):
    return Iteration(config, shape_of("tiny"), make_mesh("data:1", jax.devices()[:1]))


def halving(iteration, limit):
    """Returns rows in which every further policy takes half of the memory: 16, 8, 4, ... GiB."""
    order = policies.ladder(dataclasses.replace(LONG, memory="off"))
    total = 16 * GIB / 2 ** order.index(iteration.config)
    row = {"policy": policies.flags(iteration.config), "phase": "meta-step", "temporaries": total, "total": total}
    return row | {"fits": total <= limit, "compile_seconds": 1.0}


def test_ladder_tightens_every_setting():
    order = policies.ladder(LONG)
    assert order[0] == dataclasses.replace(LONG, memory="off")
    assert [config.remat for config in order] == sorted((c.remat for c in order), key=["none", "dots", "block"].index)
    for before, after in itertools.pairwise(order):
        for name in policies.LIMITS:
            assert getattr(before, name) == 0 or 0 < getattr(after, name) <= getattr(before, name)
    assert policies.flags(order[-1]) == (
        "--remat=block --attention=blockwise --attention_block=128 --loss_chunk=128 --example_chunk=1 "
        "--product_chunk=1 --tasks_at_a_time=1"
    )


def test_ladder_respects_mesh_and_adjoint():
    order = policies.ladder(dataclasses.replace(LONG, adjoint="mixed", tasks_per_step=16), devices=4)
    assert [config.tasks_at_a_time for config in order if config.tasks_at_a_time] == [4] * (len(order) - 3)
    assert {config.product_chunk for config in order} == {0}  # mixed mode has none


def test_choose_takes_first_policy_that_fits():
    choice = policies.choose(iteration(LONG), 5 * GIB, halving)
    assert choice.config == policies.ladder(LONG)[2]
    assert [row["fits"] for row in choice.rows] == [False, False, True]
    text = policies.table(choice)
    assert "| --remat=dots --loss_chunk=128 | meta-step | 4 | 4 | 1 s | yes |" in text
    assert text.endswith("chosen: --remat=dots --loss_chunk=128\n")


def test_choose_names_memory_of_smallest_policy():
    with pytest.raises(ValueError, match=r"^--memory=auto:24: the smallest policy needs 0\.0625 of 0\.05 GiB"):
        policies.choose(iteration(LONG), 0.05 * GIB, halving)


def test_resumed_run_keeps_its_policy():
    of_run = dataclasses.replace(policies.ladder(LONG)[3], methods=("base", "mass"))
    before = json.loads(of_run.to_json())
    assert policies.stored(LONG, before) == dataclasses.replace(of_run, methods=LONG.methods)
    assert policies.stored(LONG, None) is LONG
    for changes in ({"gamma": 0.5}, {"remat": "block"}):  # another run, and a smaller policy than that of the run
        config = dataclasses.replace(LONG, **changes)
        assert policies.stored(config, before) is config
    assert policies.stored(LONG, before | {"remat": 3}) is LONG


def test_limit_is_given_or_that_of_device():
    devices = jax.devices()
    assert policies.limit_of(LONG, devices) == 24 * GIB
    auto = dataclasses.replace(LONG, memory="auto")
    assert policies.limit_of(auto, devices, Chip(5.0, 0.0, 0.0)) == 5.0
    assert policies.limit_of(auto, devices[:1]) > policies.limit_of(auto, devices) > GIB / 8


def test_other_commands_refuse_unresolved_memory():
    with pytest.raises(ValueError, match=r"^--memory=auto:24 is for experiments.train, evaluate and plan"):
        assemble(LONG)


def test_mesh_must_split_tasks_at_a_time():
    config = Config(tasks_per_step=8, tasks_at_a_time=1)
    with pytest.raises(ValueError, match="does not divide the 1 tasks of --tasks_at_a_time"):
        check_tasks(config, make_mesh("data:8"))


def test_settings_reach_programs():
    config = Config(
        adjoint="truncated:1", example_chunk=4, product_chunk=2, tasks_at_a_time=2, compute_dtype="bfloat16"
    )
    made = iteration(config).learner()
    loop = made.loop
    assert str(loop.adjoint) == "Truncated(steps=1)"
    assert (loop.example_chunk, loop.product_chunk, loop.tasks_at_a_time) == (4, 2, 2)
    assert made.objective.surrogate.tasks_at_a_time == 2
    assert (loop.solver.config.dtype, made.scorer.config.dtype) == ("bfloat16", None)
    assert iteration(config).learner("mixed").loop.product_chunk == 0
    assert evaluation_of(iteration(config)).args[-1].tokens_BT.shape[:2] == (100, 6)


@pytest.mark.slow
def test_policy_of_tiny_model_fits_its_limit():
    config = Config(tasks_per_step=16, memory="auto:0.1")
    choice = policies.choose(iteration(config), 0.1 * GIB)
    assert [row["fits"] for row in choice.rows] == [False] * (len(choice.rows) - 1) + [True]
    assert choice.config.tasks_at_a_time
