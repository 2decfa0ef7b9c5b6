"""Finds, before training, that an optimizer's meta-gradient is NaN or identically zero. Letters: K inner steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mass_jax.metagrad import inner

# What makes the update differentiable at a zero gradient, by the state that betrays the transformation.
_MENDS = {
    "MuonState": "use adamw with eps_root=1e-8 (muon divides by the norm of a momentum that is zero at first)",
    "ScaleByAdamState": "pass eps_root=1e-8 (its default 0 takes the root of a zero second moment)",
    "ScaleByBeliefState": "raise eps_root (its root of a zero second moment has no derivative)",
    "ScaleByRmsState": "leave eps_in_sqrt=True (the root of a zero second moment has no derivative)",
    "ScaleByAmsgradState": "pass eps_root=1e-8 (its default 0 takes the root of a zero second moment)",
    "ScaleByLionState": "use adamw with eps_root=1e-8 (lion moves by a sign, whose derivative is zero)",
    "ScaleByNovogradState": "use adamw with eps_root=1e-8 (novograd divides by a layer's norm, which is zero at first)",
    "FactoredState": "use adamw with eps_root=1e-8 (adafactor divides by a root-mean-square that is zero at first)",
}
_OTHERWISE = "use sgd, or adamw with eps_root=1e-8"


def check_optimizer(
    optimizer: optax.GradientTransformation, params: Any = None, grads: Any = None, *, num_steps: int = 2
) -> None:
    """Refuses an inner optimizer whose meta-gradient would be NaN or identically zero.

    LoRA starts at B = 0, so the gradient of A is exactly zero at the first step: optimizers that divide by its root
    have no derivative there, though the adapted parameters look fine. This differentiates K updates at such gradients,
    on a few numbers, without a model.

    Args:
        optimizer: the inner optimizer.
        params: adapter at the start; None stands for one LoRA pair with B = 0.
        grads: gradient at the start, for `params`; None stands for such a pair's.
        num_steps: K; a schedule that starts at rate 0 needs at least 2.

    Raises:
        ValueError: names the leaves, what happens there, and the mend.

    >>> import optax
    >>> check_optimizer(optax.adamw(1e-3, eps_root=1e-8))
    >>> check_optimizer(optax.adamw(1e-3))
    Traceback (most recent call last):
    ValueError: the meta-gradient through this optimizer is NaN at ['a'] (its inner gradient is 0): pass eps_root=...
    """
    if params is None:
        params = {"a": _waves((8, 2), 0.0), "b": jnp.zeros((2, 8), jnp.float32)}
        grads = {"a": jnp.zeros((8, 2), jnp.float32), "b": _waves((2, 8), 1.0)}
    if grads is None:
        raise ValueError("check_optimizer got params without grads; pass the inner loss's gradient at params")
    bars = jax.jit(lambda params, grads: _cotangents(optimizer, params, grads, num_steps))(params, grads)
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(bars)]
    broken = [path for path, leaf in leaves if not bool(jnp.all(jnp.isfinite(leaf)))]
    if broken:
        where = ", ".join(broken[:4]) + (f" and {len(broken) - 4} more" if len(broken) > 4 else "")
        raise ValueError(
            f"the meta-gradient through this optimizer is NaN at {where} (its inner gradient is 0): "
            f"{_mend(optimizer, params)}"
        )
    if not any(bool(jnp.any(leaf != 0)) for _, leaf in leaves):
        raise ValueError(f"the meta-gradient through this optimizer is identically zero: {_mend(optimizer, params)}")


def _cotangents(optimizer: Any, params: Any, grads: Any, num_steps: int) -> Any:
    """Cotangents of all K inner gradients, given an arbitrary one of the adapted parameters."""
    loop = inner.InnerLoop(lambda *_: jnp.zeros(()), optimizer, num_steps, False)
    # From the second step on A has a gradient too.
    sequence = [
        jax.tree.map(lambda g, t=t: g + (0.01 * t) * _waves(g.shape, 2.0).astype(g.dtype), grads)
        for t in range(num_steps)
    ]

    def adapted(sequence: list[Any]) -> Any:
        state = loop.start(params, None)
        for each in sequence:
            state = loop.update(each, state, None)
        return state.params

    out, pull = jax.vjp(adapted, sequence)
    return jax.tree.map(
        lambda *steps: jnp.stack(steps), *pull(jax.tree.map(lambda p: _waves(p.shape, 3.0).astype(p.dtype), out))[0]
    )


def _waves(shape: tuple[int, ...], phase: float) -> jax.Array:
    """Fixed numbers without structure that an optimizer could cancel."""
    size = 1
    for extent in shape:
        size *= extent
    return jnp.sin(phase + 1.7 * jnp.arange(1, size + 1, dtype=jnp.float32)).reshape(shape)


def _mend(optimizer: Any, params: Any) -> str:
    state = inner.InnerLoop(lambda *_: jnp.zeros(()), optimizer, 1, False).start(params, None).opt_state
    names: set[str] = set()
    jax.tree.map(lambda node: names.update(_classes(node)), state, is_leaf=lambda node: isinstance(node, tuple))
    return next((mend for name, mend in _MENDS.items() if name in names), _OTHERWISE)


def _classes(node: Any) -> set[str]:
    """Names of all state classes at and below a node."""
    if not isinstance(node, tuple | list | dict):
        return set()
    children = node.values() if isinstance(node, dict) else node
    return {type(node).__name__}.union(*(_classes(child) for child in children))
