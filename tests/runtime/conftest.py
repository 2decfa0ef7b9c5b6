"""Meta-step at the smallest size that is divisible by every mesh of 8 devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mass_jax.llama import Llama
from mass_jax.method import adapt, meta_step, objective, outer_optimizer, score
from mass_jax.method.adjoints import make_adjoint
from mass_jax.method.models import Solver
from mass_jax.method.text import Text
from tests.rollouts import random_rollout
from tests.small_models import DIVISIBLE_LLAMA as CONFIG
from tests.small_models import llama_params

TASKS, EXAMPLES, TOKENS, NEW = 8, 8, 6, 4


@functools.cache
def learner(adjoint="weighted", generator="full"):
    solver = Solver(Llama(CONFIG), generator)
    loop = adapt.LoraLoop(solver, optax.sgd(0.3), 2, 2, 1.0, ("q_proj", "down_proj"), make_adjoint(adjoint))
    surrogate = objective.Surrogate(solver, 0.2, 0.01, "sequence")
    return meta_step.Learner(
        loop=loop,
        scorer=Llama(score.scorer_config(CONFIG, 1, 16)),
        objective=objective.GeneratorObjective(surrogate, NEW, NEW, gold=False, gamma=0.1),
        policy_optimizer=outer_optimizer.make(1e-2, 1.0),
        scorer_optimizer=outer_optimizer.make(1e-2, 1.0),
        warmup_steps=0,
    )


def rows(seed, count):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(2, TOKENS + 1, (TASKS, count, 1))
    mask = np.arange(TOKENS) < lengths
    return Text(draw.integers(0, CONFIG.vocab_size, mask.shape, np.int32), mask, (mask * 1.0).astype(np.float32))


@functools.cache
def problem(dtype):
    """Returns state and batch; the scorer's head is not zero, so that its trunk has gradients."""
    made = learner()
    params = llama_params(CONFIG)
    adapters = made.loop.init_adapters(jax.random.split(jax.random.key(1), TASKS))
    slots = {"prompt": TOKENS - NEW, "new": NEW, "vocabulary": CONFIG.vocab_size}
    generated, attempts = (random_rollout(seed, (TASKS, EXAMPLES), **slots) for seed in (3, 4))
    right = np.asarray(np.random.default_rng(5).random((TASKS, EXAMPLES)) < 0.5, np.float32)
    batch = meta_step.TaskBatch(rows(1, EXAMPLES), rows(2, EXAMPLES), generated, attempts, right, adapters)
    with jax.numpy_dtype_promotion("standard"):
        state = jax.jit(meta_step.init_state, static_argnums=1)(jax.random.key(2), made, params)
    state.scorer["head"]["kernel"] = jnp.linspace(-1.0, 1.0, 16)
    return jax.tree.map(lambda leaf: _cast(leaf, dtype), (state, batch))


def _cast(leaf, dtype):
    leaf = jnp.asarray(leaf)
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
