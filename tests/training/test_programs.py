"""Programs that are compiled ahead of time are those that a run calls."""

import jax
import numpy as np
import pytest

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.training import programs, rollout, train
from mass_jax.training.components import assemble
from mass_jax.training.learners import mass_learner


@pytest.fixture(scope="module")
def shapes():
    config = Config(num_examples=2, num_attempts=2, num_test_examples=2, tasks_per_step=2, eval_batch=2)
    components = assemble(config)
    try:
        yield components, programs.Shapes(config, components.rollouts.loop, components.scorer, components.rollouts.feed)
    finally:
        components.close()


def test_programs_have_distinct_names(shapes):
    found = programs.run_programs(shapes[1], ["base", "tt_ss", "solver_grpo", "mass", "mass_gold"])
    assert len({program.name for program in found}) == len(found)
    assert {"the meta-step of mass verifier", "the meta-step of mass gold", train.GRPO_STEP} <= {p.name for p in found}


def test_untrained_base_row_needs_one_program(shapes):
    (only,) = programs.run_programs(shapes[1], ["base"])
    assert only.name == rollout.sampling_name(2, 1, (8, 4), adapted=False)


def test_compiled_sampling_is_the_one_that_evaluation_calls(shapes, caplog):
    components, abstract = shapes
    (program,) = programs.run_programs(abstract, ["base"])
    rollouts = components.on_every_process().rollouts
    problems = components.problems(0).train[:2]
    keys_N = jax.random.split(jax.random.key(0), 2)
    weights = components.pretrained()
    with runtime.use_mesh(rollouts.feed.mesh):
        abstract.on_mesh(program)()
        with caplog.at_level("WARNING"), jax.log_compiles():
            rollouts.respond(weights, None, rollouts.dialogue.solver_prompts(problems), keys_N, 1, 0.0)
    assert not [text for text in map(str, caplog.messages) if "Compiling jit(sample)" in text]


def test_state_and_batch_have_the_shapes_of_training(shapes):
    components, abstract = shapes
    learner = mass_learner(components.config, components.rollouts.loop, components.scorer, "gold")
    (program,) = [p for p in programs.training_programs(abstract, "gold") if "meta-step" in p.name]
    solutions = components.rollouts.dialogue.gold(components.problems(0).train[:2])
    given = program.args[3].solutions
    assert program.args[0] == learner
    assert jax.tree.map(lambda leaf: leaf.shape, given) == jax.tree.map(np.shape, solutions)
