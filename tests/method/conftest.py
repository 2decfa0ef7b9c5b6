"""Components of the embedded model with a few problems.

Components and learners have session scope, so that each jitted function compiles once.
"""

import functools

import jax
import numpy as np
import pytest

from mass_jax.config import Config
from mass_jax.method.meta_step import TaskBatch
from mass_jax.method.text import encode_completion, join_rollout
from mass_jax.tasks.base import Example, Rejected
from mass_jax.training.components import assemble
from mass_jax.training.learners import mass_learner

TASKS, EXAMPLES = 3, 4


@pytest.fixture(scope="session")
def components():
    # Adapters in one projection of the attention and one of the MLP; programs with all seven take twice as long.
    targets = ("q_proj", "down_proj")
    sizes = {"num_examples": EXAMPLES, "num_train_problems": 20, "num_eval_problems": 10, "num_attempts": 3}
    return assemble(Config(**sizes, lora_targets=targets))


@pytest.fixture(scope="session")
def learner(components):
    """Returns learners by outer loss and control, one object each."""
    return functools.cache(
        functools.partial(mass_learner, components.config, components.rollouts.loop, components.scorer)
    )


@pytest.fixture(scope="session")
def problems(components):
    return components.problems(seed=0).train[:TASKS]


def written(dialogue, problems, texts):
    """Returns a rollout in which the generator wrote the same texts for every problem."""
    ids = [encode_completion(dialogue.tokenizer, text, dialogue.end_token) for text in texts]
    tokens_MT = np.zeros((len(texts), dialogue.max_example_tokens), np.int32)
    for row, own in zip(tokens_MT, ids, strict=True):
        row[: len(own)] = own
    prompts_NT, lengths_N = dialogue.generator_prompts(problems)
    tokens_NMT = np.stack([tokens_MT] * len(problems))
    counts_NM = np.array([[len(own) for own in ids]] * len(problems))
    return join_rollout(prompts_NT, lengths_N, tokens_NMT, np.full(tokens_NMT.shape, -0.1, np.float32), counts_NM)


@pytest.fixture
def batch(components, problems):
    """A batch that is not sampled: correct, incorrect and rejected examples with gold solutions."""
    parsed = []
    for problem in problems:
        x, operator, y = problem.problem.split()
        other = f"{y} {operator} {x}" if x != y else f"{x} {operator} {(int(y) + 1) % 10}"
        rows = [Example(other, "1 2"), Example(f"1 {operator} 2", "0 3"), Example(f"2 {operator} 2", "0 4")]
        parsed.append([*rows, Rejected("a test")])
    synthetic = components.rollouts.dialogue.encode(problems, [[""] * EXAMPLES for _ in problems], parsed)
    generated = written(components.rollouts.dialogue, problems, ["2 kabo 3", "1 2", "0 3", "4"])
    adapters = components.rollouts.loop.init_adapters(jax.random.split(jax.random.key(0), TASKS))
    right = np.ones((TASKS, 1), np.float32)
    return TaskBatch(
        synthetic.examples,
        synthetic.scorer_texts,
        generated,
        components.rollouts.dialogue.gold(problems),
        right,
        adapters,
    )
