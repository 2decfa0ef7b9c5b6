"""Real parts at a small size: the embedded model and tokenizer, a handful of tasks.

Parts and learners live as long as the session, so that each jitted function compiles once.
"""

import functools

import jax
import numpy as np
import pytest

from mass_jax.config import Config
from mass_jax.method.meta_step import TaskBatch
from mass_jax.method.text import Rollout
from mass_jax.tasks.base import Example, Rejected
from mass_jax.training.components import assemble

TASKS, EXAMPLES = 3, 4


@pytest.fixture(scope="session")
def parts():
    return assemble(Config(num_examples=EXAMPLES, num_train_problems=20, num_eval_problems=10, num_attempts=3))


@pytest.fixture(scope="session")
def learner(parts):
    """Learners by outer loss and control, one object each."""
    return functools.lru_cache(parts.learner)


@pytest.fixture(scope="session")
def problems(parts):
    return parts.problems(seed=0).train[:TASKS]


@pytest.fixture
def batch(parts, problems):
    """A batch made without sampling: right, wrong and unparsable examples, gold solutions."""
    parsed = []
    for problem in problems:
        x, operator, y = problem.problem.split()
        other = f"{y} {operator} {x}" if x != y else f"{x} {operator} {(int(y) + 1) % 10}"
        rows = [Example(other, "1 2"), Example(f"1 {operator} 2", "0 3"), Example(f"2 {operator} 2", "0 4")]
        parsed.append([*rows, Rejected("a test")])
    practice = parts.dialogue.encode(problems, [[""] * EXAMPLES for _ in problems], parsed)
    generated = Rollout(practice.scorer_texts, np.full(practice.scorer_texts.target_BT.shape, -0.1, np.float32))
    adapters = parts.loop.init_adapters(jax.random.split(jax.random.key(0), TASKS))
    right = np.ones((TASKS, 1), np.float32)
    return TaskBatch(
        practice.examples, practice.scorer_texts, generated, parts.dialogue.gold(problems), right, adapters
    )
