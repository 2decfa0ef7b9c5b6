r"""Chooses the eps_root of Adam-like inner optimizers from the scale of the inner gradient.

With a fresh second moment, Adam's update of an entry with gradient g is

.. math:: -\eta\, g / \sqrt{g^2 + \epsilon_{root}}.

If eps_root is far below g^2, this is -eta sign(g): it does not change when all weights of the examples are scaled, so
the rewards of a problem sum to zero, and its derivative lives on the few entries near zero. If eps_root is above g^2,
the update is smooth and the reward predicts what an example does.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.llama import lora
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Weights
from mass_jax.method.text import Text
from mass_jax.tasks.base import Problem
from mass_jax.training.compiling import announced
from mass_jax.training.rollout import Rollouts
from mass_jax.types import PyTree

PROBLEMS = 16
SEARCHED = 64  # problems among which solutions that fit are searched
FACTOR = 3.0  # of the typical entry of the gradient; docs/guides/check_the_signal.md has the measurements


def auto_eps_root(rollouts: Rollouts, weights: Weights, problems: Sequence[Problem], num_examples: int) -> float:
    r"""Returns an eps_root that makes the update of the fresh adapter smooth.

    .. math:: \epsilon_{root} = (c\, \mathrm{rms}(\nabla_B L_{inner}(\phi_0)))^2, \quad c = 3

    The gradient is that of gold solutions of training problems that fit their rows, `num_examples` at a time with
    weight 1, under the pretrained model. Entries that are zero for every group, such as those of A while B = 0, do not
    count. The result is a constant of the run, so meta-gradients stay exact; it is rounded to a half power of ten.

    Args:
        rollouts: the inner loop and the prompts.
        weights: pretrained weights.
        problems: training problems; the first ones are used.
        num_examples: number of examples per adaptation.

    >>> round_to_half_decade(2e-3), round_to_half_decade(0.03)
    (0.003, 0.03)
    """
    fitting = rollouts.dialogue.fitting_gold(problems[:SEARCHED])
    if fitting is None:
        raise ValueError(
            f"--inner_eps_root=auto found no gold solution that fits among {min(len(problems), SEARCHED)} training "
            f"problems; raise --max_answer_tokens, or give a number, such as 1e-4"
        )
    groups = max(PROBLEMS // num_examples, 1)
    rows = np.arange(groups * num_examples) % len(fitting.tokens_BT)
    text = jax.tree.map(lambda leaf: leaf[rows].reshape(groups, num_examples, leaf.shape[-1]), fitting)
    with announced(f"the gradient of {groups} x {num_examples} gold solutions"):
        mean_square = float(_mean_square(rollouts.loop, weights, text))
    if not math.isfinite(mean_square) or mean_square <= 0:
        raise ValueError(
            f"--inner_eps_root=auto found a mean squared inner gradient of {mean_square}; give a number, such as 1e-4"
        )
    return round_to_half_decade(FACTOR**2 * mean_square)


def round_to_half_decade(value: float) -> float:
    """Rounds a positive number to the nearest of ..., 1e-3, 3e-3, 1e-2, ... on a logarithmic scale."""
    half_decades = round(2 * math.log10(value))
    return float(f"{3 if half_decades % 2 else 1}e{half_decades // 2}")


@jax.jit(static_argnames="loop")
def _mean_square(loop: LoraLoop, weights: Weights, text: Text) -> jax.Array:
    """Returns the mean of the squared gradient over the entries that are not zero in every group."""
    adapters = loop.init_adapters(jax.random.split(jax.random.key(0), text.tokens_BT.shape[0]))
    loss = loop.loss(weights)

    def one(leaves: PyTree, rows: Text) -> PyTree:
        ones_M = jnp.ones(rows.tokens_BT.shape[0], jax.tree.leaves(leaves)[0].dtype)
        read = loop.solver.read(weights, rows)
        return jax.grad(lambda adapter: loss(adapter, ones_M, read))(adapters.one(leaves)).leaves

    squares = [leaf**2 for leaf in jax.tree.leaves(jax.vmap(one)(lora.checked(adapters, batched=True).leaves, text))]
    total = jnp.stack([square.sum() for square in squares]).sum()
    count = jnp.stack([square.any(0).sum() for square in squares]).sum() * text.tokens_BT.shape[0]
    return total / jnp.maximum(count, 1).astype(total.dtype)
