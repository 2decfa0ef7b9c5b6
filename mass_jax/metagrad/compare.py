"""Agreement between estimates of a meta-gradient: across adjoints and across precisions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.metagrad import adjoints, meta, validation
from mass_jax.metagrad.trees import PyTree


class Agreement(NamedTuple):
    """Agreement of an estimate with a reference, over all leaves flattened and concatenated.

    Attributes:
        cosine: cosine similarity.
        norm_ratio: norm of the estimate divided by that of the reference.
        rank_correlation: Spearman's rank correlation; 1 if both rank the entries (examples to reward) alike.
    """

    cosine: jax.Array
    norm_ratio: jax.Array
    rank_correlation: jax.Array


def agreement(estimate: PyTree, reference: PyTree) -> Agreement:
    """Compares two trees of the same structure; the agreement with a zero tree is NaN.

    Args:
        estimate: tree to evaluate.
        reference: tree to compare with.

    Returns:
        The `Agreement`.

    Raises:
        UserError: the trees differ in structure or shapes.

    >>> import jax.numpy as jnp
    >>> [round(float(x), 3) for x in agreement(jnp.array([2.0, 4.0, 7.0]), jnp.array([1.0, 2.0, 3.0]))]
    [0.997, 2.22, 1.0]
    """
    validation.same_shapes("estimate", estimate, "reference", reference)
    left, right = _flat(estimate), _flat(reference)
    ranks = jax.scipy.stats.rankdata(left), jax.scipy.stats.rankdata(right)
    norms = jnp.linalg.norm(left), jnp.linalg.norm(right)
    return Agreement(_cosine(left, right), norms[0] / norms[1], _cosine(*(rank - jnp.mean(rank) for rank in ranks)))


def compare_adjoints(
    inner_loss: Callable[..., Any],
    outer_loss: Callable[..., Any],
    params: PyTree,
    meta_params: PyTree,
    batch: PyTree,
    outer_batch: PyTree,
    *,
    estimates: Mapping[str, adjoints.Adjoint],
    reference: adjoints.Adjoint = adjoints.MixedMode(),  # noqa: B008  frozen
    **settings: Any,
) -> dict[str, Agreement]:
    """Compares meta-gradients of several adjoints with that of a reference adjoint, on one problem.

    Args:
        inner_loss, outer_loss, params, meta_params, batch, outer_batch: as for `meta_gradient`.
        estimates: adjoints to evaluate, by name.
        reference: adjoint to compare with.
        **settings: `optimizer`, `num_steps`, and other arguments of `meta_gradient`.

    Returns:
        The `Agreement` of each adjoint, by name.

    >>> import jax.numpy as jnp, optax
    >>> from mass_jax.metagrad import FirstOrder, WeightedLoss
    >>> loss = WeightedLoss(lambda params, batch: (params - batch) ** 2)
    >>> out = compare_adjoints(loss, lambda p, b: (p - b) ** 2, jnp.float32(0.0), jnp.ones(3),
    ...                        jnp.array([1.0, -1.0, 2.0]), jnp.float32(1.0), estimates={"first": FirstOrder()},
    ...                        optimizer=optax.sgd(0.1), num_steps=2)
    >>> bool(out["first"].cosine > 0.9)
    True
    """
    args = (params, meta_params, batch, outer_batch)

    def gradient(adjoint: adjoints.Adjoint) -> Any:
        run = jax.jit(lambda *a: meta.meta_gradient(inner_loss, outer_loss, *a, adjoint=adjoint, **settings).meta)
        return run(*args)

    exact = gradient(reference)
    return {name: agreement(gradient(adjoint), exact) for name, adjoint in estimates.items()}


def precision_report(
    gradient: Callable[..., Any],
    *args: Any,
    low: jax.typing.DTypeLike = "bfloat16",
    high: jax.typing.DTypeLike = "float32",
) -> Agreement:
    """Compares a gradient computed in a low precision with the same gradient in a high one.

    Low precision can silently ruin scores while losses look right; run this once on the real model.

    Args:
        gradient: function of `args` that returns a pytree, for example `meta_gradient(...).meta`. Only arguments are
            cast, so pass the base weights as an argument and close over the adapter, for example.
        *args: pytrees whose floating-point leaves are cast.
        low, high: the two precisions.

    Returns:
        The `Agreement` of low with high precision.

    >>> import jax.numpy as jnp
    >>> bool(precision_report(jax.grad(lambda x: jnp.sum(jnp.sin(x))), jnp.linspace(0.0, 3.0, 8)).cosine > 0.999)
    True
    """
    jitted = jax.jit(gradient)
    return agreement(jitted(*_cast(args, low)), jitted(*_cast(args, high)))


def _cast(tree: Any, dtype: Any) -> Any:
    def one(leaf: Any) -> Any:
        return jnp.asarray(leaf, dtype) if jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.floating) else leaf

    return jax.tree.map(one, tree)


def _flat(tree: Any) -> jax.Array:
    wide = jax.dtypes.canonicalize_dtype(float)
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.concatenate([jnp.ravel(leaf).astype(wide) for leaf in leaves])


def _cosine(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.vdot(left, right) / (jnp.linalg.norm(left) * jnp.linalg.norm(right))
