"""Real parts at a small size: the embedded model and tokenizer, a handful of tasks."""

import dataclasses

import jax
import numpy as np
import pytest

from mass_jax.assemble import assemble
from mass_jax.config import Config
from mass_jax.method.meta_step import TaskBatch
from mass_jax.method.text import Rollout
from mass_jax.tasks.problem import Example, Rejected

TASKS, EXAMPLES = 3, 4


@pytest.fixture(scope="session")
def config():
    return Config(num_examples=EXAMPLES, num_train_problems=20, num_eval_problems=10, num_attempts=3)


@pytest.fixture
def parts(config):
    return assemble(config)


@pytest.fixture
def make_batch(parts):
    """Builds a batch for given problems: right, wrong and unparsable examples, without any sampling."""

    def make(problems, keys, solutions=None, right=None):
        parsed = []
        for problem in problems:
            x, operator, y = problem.problem.split()
            other = f"{y} {operator} {x}" if x != y else f"{x} {operator} {(int(y) + 1) % 10}"
            rows = [Example(other, "1 2"), Example(f"1 {operator} 2", "0 3"), Example(f"2 {operator} 2", "0 4")]
            parsed.append([*rows, Rejected("a test")])
        texts = [["loda : 1 2"] * EXAMPLES for _ in problems]
        practice = parts.dialogue.encode(problems, texts, parsed)
        gold = parts.dialogue.gold(problems) if solutions is None else solutions
        right = np.ones(gold.text.tokens_BT.shape[:2], np.float32) if right is None else right
        generated = Rollout(practice.scorer_texts, np.full(practice.scorer_texts.target_BT.shape, -0.1, np.float32))
        adapters = parts.loop.init_adapters(keys)
        return TaskBatch(practice.examples, practice.scorer_texts, generated, gold, right, adapters)

    return make


@pytest.fixture
def problems(parts):
    return parts.problems(seed=0).train[:TASKS]


@pytest.fixture
def keys():
    return jax.random.split(jax.random.key(0), TASKS)


@pytest.fixture
def replace_loop():
    """The learner with other settings of the inner loop."""

    def replace(learner, **changes):
        return dataclasses.replace(learner, loop=dataclasses.replace(learner.loop, **changes))

    return replace
