"""How far two estimators of one meta-gradient agree: between adjoints, and between precisions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.metagrad import adjoints, meta


class Agreement(NamedTuple):
    """Of an estimate with a reference, all leaves flattened together.

    Attributes:
        cosine: of the angle between them; 1 when they point alike.
        norm_ratio: norm of the estimate over that of the reference.
        rank_correlation: Spearman's; 1 when they order the entries alike (which example to reward more).
    """

    cosine: jax.Array
    norm_ratio: jax.Array
    rank_correlation: jax.Array


def agreement(estimate: Any, reference: Any) -> Agreement:
    """Compares two trees of one structure; a zero tree gives NaN, which is what it deserves.

    >>> import jax.numpy as jnp
    >>> [round(float(x), 3) for x in agreement(jnp.array([2.0, 4.0, 7.0]), jnp.array([1.0, 2.0, 3.0]))]
    [0.997, 2.22, 1.0]
    """
    left, right = _flat(estimate), _flat(reference)
    ranks = jax.scipy.stats.rankdata(left), jax.scipy.stats.rankdata(right)
    norms = jnp.linalg.norm(left), jnp.linalg.norm(right)
    return Agreement(_cosine(left, right), norms[0] / norms[1], _cosine(*(rank - jnp.mean(rank) for rank in ranks)))


def compare_adjoints(
    inner_loss: Callable[..., Any],
    outer_loss: Callable[..., Any],
    params: Any,
    meta_params: Any,
    batch: Any,
    outer_batch: Any,
    *,
    estimates: Mapping[str, adjoints.Adjoint],
    reference: adjoints.Adjoint = adjoints.MixedMode(),  # noqa: B008  frozen
    **settings: Any,
) -> dict[str, Agreement]:
    """Agreement of each adjoint's meta-gradient with the reference adjoint's, on one problem.

    Args:
        inner_loss, outer_loss, params, meta_params, batch, outer_batch: as for `meta_gradient`.
        estimates: adjoints by the names that the result shall have.
        reference: the adjoint to hold them against.
        **settings: `optimizer`, `num_steps` and whatever else `meta_gradient` takes.

    Returns:
        An `Agreement` for each name.

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
    """Agreement of a gradient computed in a low precision with the same in a high one.

    Low precision can silently ruin scores while losses look right: run this once on the real model.

    Args:
        gradient: function of `args` returning a tree, for example a `meta_gradient(...).meta`. What it closes over
            keeps its precision, so pass as an argument what shall be cast: base weights, and not the adapter, say.
        *args: trees; their floating leaves are cast.
        low, high: the two precisions.

    Returns:
        `Agreement` of the low with the high.

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
