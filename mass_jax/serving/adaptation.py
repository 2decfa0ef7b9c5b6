"""Adaptation with measurements: inner losses, update size relative to the weights, hashes, and suite scores.

Shape suffixes: N problems, M examples of a problem, R texts of the suite, K inner steps, T tokens, B rows, L layers,
V vocabulary.
"""

import functools
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax import metagrad as mg
from mass_jax.llama import lora
from mass_jax.method.adapt import LoraLoop
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Text
from mass_jax.types import Adapter, Params, PyTree


class Measured(NamedTuple):
    """Adapted adapters with their losses and norms.

    Attributes:
        adapters: as returned by `method.adapt.adapt`, one per problem.
        losses_NK: inner loss in nats per token, summed over examples, before each step and after the last (K + 1).
        norms: relative norm of the update for each projection and in total ("all"), each [N].
    """

    adapters: Adapter
    losses_NK: jax.Array
    norms: dict[str, jax.Array]


@functools.partial(jax.jit, static_argnames="loop")
def measured_adapt(loop: LoraLoop, weights: Weights, adapters: Adapter, kept_NM: jax.Array, examples: Text) -> Measured:
    r"""Runs `method.adapt.adapt` and also returns the inner losses and the size of the update.

    .. math:: \phi_{t+1} = \Upsilon(\nabla_\phi \sum_i s_i \ell_i(\phi_t), \phi_t)

    Args:
        loop: the inner loop (static).
        weights: the generator's weights.
        adapters: fresh adapters, one per problem.
        kept_NM: 1 for examples to train on.
        examples: rows [N, M, T] in solver form.

    Source: the paper, section 2.1, L_inner.
    """

    def one(leaves: PyTree, kept_M: jax.Array, text: Text) -> tuple[PyTree, jax.Array]:
        loss, seen = loop.loss(weights), loop.solver.read(weights, text)
        found = mg.adapt(loss, adapters.one(leaves), kept_M, seen, optimizer=loop.optimizer, num_steps=loop.num_steps)
        return found.params.leaves, jnp.append(found.losses_K, loss(found.params, kept_M, seen))

    leaves_N, losses_NK = jax.vmap(one)(lora.checked(adapters, batched=True).leaves, kept_NM, examples)
    params = loop.solver.params(weights)
    norms = jax.vmap(lambda leaves: relative_norms(params, adapters.one(leaves)))(leaves_N)
    return Measured(adapters.many(leaves_N), losses_NK, norms)


def relative_norms(params: Params, adapter: Adapter) -> dict[str, jax.Array]:
    r"""Returns the size of an adapter's update relative to the weights it acts on.

    .. math:: \frac{\|A B\|_F}{\|W\|_F}, \qquad \|A B\|_F^2 = \operatorname{tr}\left((A^T A)(B B^T)\right)

    Args:
        params: parameters under the adapter.
        adapter: a shared adapter, whose scale is folded into B; it covers the last blocks if the model has more.

    Returns:
        One number per projection, over all layers, and the total as "all".
    """
    layers = lora.folded(lora.checked(adapter, batched=False)).leaves["layers"]
    pairs = {(parent, name): pair for parent, node in layers.items() for name, pair in node.items()}
    updates = {where: _product_square(pair["a"], pair["b"]) for where, pair in pairs.items()}
    kernels = {
        (parent, name): _square(params["layers"][parent][name]["kernel"][-pair["a"].shape[0] :])
        for (parent, name), pair in pairs.items()
    }
    norms = {where[1]: jnp.sqrt(updates[where] / kernels[where]) for where in pairs}
    return norms | {"all": jnp.sqrt(sum(updates.values(), jnp.zeros(())) / sum(kernels.values(), jnp.zeros(())))}


def _square(leaf: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))))


def _product_square(a_LIR: jax.Array, b_LRO: jax.Array) -> jax.Array:
    gram_a, gram_b = jnp.swapaxes(a_LIR, -1, -2) @ a_LIR, b_LRO @ jnp.swapaxes(b_LRO, -1, -2)
    return jnp.maximum(jnp.sum(gram_a * gram_b), 0)  # symmetric, so the sum of products is the trace


@functools.partial(jax.jit, static_argnames="solver")
def example_nll(solver: Solver, weights: Weights, examples: Text) -> jax.Array:
    """Returns the loss of each example [N, M] under the unadapted model, in nats per token; 0 for masked rows."""
    N, M, _ = examples.tokens_BT.shape
    rows = jax.tree.map(lambda leaf: leaf.reshape(N * M, -1), examples)
    return solver.completion_nll(weights, rows).reshape(N, M)


class SuiteScore(NamedTuple):
    """A model's score on the regression suite.

    Attributes:
        nll: loss of each text, in nats per token.
        right: 1 where greedy decoding reproduces the completion.
    """

    nll: jax.Array
    right: jax.Array


@functools.partial(jax.jit, static_argnames="solver")
def score_suite(solver: Solver, weights: Weights, adapters: Adapter | None, suite: Text) -> SuiteScore:
    """Scores each adapter on every text of a suite, one adapter at a time to bound memory.

    Args:
        solver: the language model (static).
        weights: the generator's weights.
        adapters: N adapters; None scores the unadapted model, with N = 1.
        suite: rows [R, T].

    Returns:
        Scores [N, R]; `right` is 1 where every completion token has the highest probability given its predecessors.
    """

    def one(adapter: Adapter | None) -> SuiteScore:
        variables = lora.variables(solver.params(weights), solver.adapter(weights, adapter))
        logits_BTV: Any = solver.model.apply(variables, suite.tokens_BT, suite.mask_BT)
        logprobs_BTV = jax.nn.log_softmax(logits_BTV[:, :-1].astype(jnp.float32))
        labels_BT, target_BT = suite.tokens_BT[:, 1:], suite.target_BT[:, 1:]
        nll_BT = -jnp.take_along_axis(logprobs_BTV, labels_BT[..., None], -1)[..., 0]
        hits_BT = jnp.argmax(logprobs_BTV, -1) == labels_BT
        nll_B = (nll_BT * target_BT).sum(-1) / jnp.maximum(target_BT.sum(-1), 1)
        return SuiteScore(nll_B, jnp.all(hits_BT | (target_BT == 0), -1))

    if adapters is None:
        return jax.tree.map(lambda leaf: leaf[None], one(None))
    return jax.lax.map(lambda leaves: one(adapters.one(leaves)), lora.checked(adapters, batched=True).leaves)


def tree_sha256(tree: PyTree) -> str:
    """Returns the SHA-256 of every leaf's path, dtype, shape and bytes; it does not depend on devices or sharding.

    >>> tree_sha256({"a": np.zeros(2)}) == tree_sha256({"a": np.zeros(2)}) != tree_sha256({"b": np.zeros(2)})
    True
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def take(tree: PyTree, slot: int) -> PyTree:
    """Returns one problem's slice of a tree with leading axis N, on the host."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[slot], tree)
