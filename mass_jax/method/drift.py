"""Drift of the generator: how far training has moved it from its start, measured on the examples that it writes.

Shape suffixes: N problems, M samples per problem, T tokens.
"""

import dataclasses
import functools

import jax

from mass_jax.method import policy_gradient
from mass_jax.method.groups import over_tasks
from mass_jax.method.models import Solver, Weights
from mass_jax.method.objective import flatten_tasks
from mass_jax.method.text import Rollout, Text
from mass_jax.types import Params


@functools.partial(jax.jit, static_argnames=("solver", "new_tokens", "tasks_at_a_time"))
def start_logprobs(solver: Solver, params: Params, text: Text, new_tokens: int, tasks_at_a_time: int = 0) -> jax.Array:
    """Returns the log-probabilities of texts under the generator before training.

    Before training, the generator is the pretrained model: its own adapter starts with B = 0, and a generator that is
    trained in full starts as a copy of the parameters, which stay in memory for the rows without training. So this
    needs one forward pass and no further copy of the weights.

    Args:
        solver: the language model (static).
        params: pretrained parameters.
        text: rows [N, M, T] of a rollout.
        new_tokens: slots for generated tokens in each row (static).
        tasks_at_a_time: largest number of problems at a time; 0 is all (static).

    Returns:
        logprobs_NMT, float32, in nats.
    """
    pretrained = dataclasses.replace(solver, generator="full", generator_blocks=0)

    def one(rows: Text) -> jax.Array:
        return pretrained.continuation_logprobs(Weights({}, params), rows, new_tokens)

    return over_tasks(one, tasks_at_a_time, text)


@jax.jit
def kl_to_start(generated: Rollout, start_logprobs_NMT: jax.Array) -> jax.Array:
    """Returns the estimated KL divergence of the generator from its start, in nats per generated token.

    Args:
        generated: rollout of the examples, [N, M, T], with their log-probabilities at sampling time.
        start_logprobs_NMT: from `start_logprobs`.
    """
    rows = flatten_tasks((generated.logprobs_BT, start_logprobs_NMT, generated.text.target_BT))
    return policy_gradient.kl_to_start(*rows)
