"""Refuses an inner optimizer whose meta-gradient is NaN, zero, or wrong, before training. Letters: K inner steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.metagrad import advice, inner, trees

_STEP = 1e-6  # of the finite difference: gradients of this size must be described by the derivative at zero
_TOLERANCE = 1e-2


class Fault(NamedTuple):
    """Why a meta-gradient is unusable: a description, and the number of inner steps at which it shows."""

    text: str
    num_steps: int


def check_optimizer(optimizer: inner.Optimizer, params: Any = None, grads: Any = None, *, num_steps: int = 2) -> None:
    """Refuses an inner optimizer whose meta-gradient would be NaN, identically zero, or wrong at a zero gradient.

    Two gradients of exactly zero occur in practice. LoRA starts at B = 0, so the gradient of A is zero at the first
    step; and the whole gradient is zero at every step when every example of a task is rejected. This function
    differentiates K updates at such gradients, on a few numbers, without a model, and compares the derivative at the
    all-zero gradient with a finite difference.

    Args:
        optimizer: the inner optimizer; if it is a function of the meta-parameters, pass what the function returns.
        params: parameters to check at; None stands for one LoRA pair with B = 0.
        grads: gradient at the first step for `params`; with `params`, this gradient alone is checked.
        num_steps: K, the number of inner steps in use. Some optimizers fail only from a later step on.

    Raises:
        ValueError: names the leaves, the fault, and the fix.

    >>> import optax
    >>> check_optimizer(optax.adamw(1e-3, eps_root=1e-8))
    >>> check_optimizer(optax.adamw(1e-3))
    Traceback (most recent call last):
    mass_jax.errors.UserError: the meta-gradient through this optimizer is NaN at ['a'] (its inner gradient is 0): ...
    """
    if params is not None and grads is None:
        raise UserError("check_optimizer got params without grads; pass the inner loss's gradient at params")
    if inner.InnerLoop(_no_loss, optimizer, num_steps, False).meta_in_optimizer:
        raise UserError("check_optimizer got a function; pass the optimizer that it returns")
    faults = find_faults(optimizer, (num_steps,), params, grads)
    if faults:
        fix = advice.fix_for(optimizer, params if params is not None else _lora_pair()[0])
        raise UserError(f"{faults[0].text}: {fix}")


def find_faults(optimizer: Any, counts: Sequence[int], params: Any = None, grads: Any = None) -> list[Fault]:
    """Faults of the meta-gradient at each of the given numbers of inner steps; at most one each.

    Raises:
        UserError: not an optimizer, or one that needs more than the gradient.
    """
    if params is not None:
        probe, sequence = _Probe(optimizer, params, max(counts)), _sequence(grads, max(counts), 0.01)
        found = [(probe.non_finite(sequence, count) or probe.vanishing(sequence, count), count) for count in counts]
        return [Fault(text, count) for text, count in found if text]
    faults = []
    with jax.enable_x64(True):  # a finite difference needs the digits
        params, grads = _lora_pair()
        probe = _Probe(optimizer, params, max(counts))
        # With LoRA, every entry has a gradient from the second step on.
        start, rejected = _sequence(grads, max(counts), 0.01), _sequence(grads, max(counts), None)
        for count in counts:
            text = (
                probe.non_finite(start, count) or probe.vanishing(start, count) or probe.wrong_at_zero(rejected, count)
            )
            if text:
                faults.append(Fault(text, count))
    return faults


class _Probe:
    """Updates along a sequence of gradients and their derivative; compiled once for all K up to `limit`."""

    def __init__(self, optimizer: Any, params: Any, limit: int) -> None:
        loop = inner.InnerLoop(_no_loss, optimizer, limit, False)

        def adapted(sequence: Any, count: Any) -> Any:
            def step(state: inner.InnerState, index_and_grads: Any) -> tuple[inner.InnerState, None]:
                index, grads = index_and_grads
                return jax.lax.cond(index < count, lambda: loop.update(grads, state, None), lambda: state), None

            out = jax.lax.scan(step, loop.start(params, None), (jnp.arange(limit), sequence))[0].params
            parts = jax.tree.map(lambda leaf: jnp.vdot(leaf, _waves(leaf.shape, 3.0).astype(leaf.dtype)), out)
            return jax.tree.reduce(lambda a, b: a + b.astype(a.dtype), parts)

        # Without XLA's optimizations: compiling takes nearly all of the time.
        fast = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        options = fast if jax.default_backend() == "cpu" else None
        state = jax.tree.leaves(jax.eval_shape(lambda: loop.start(params, None).opt_state))
        coarsest = max(
            (float(jnp.finfo(leaf.dtype).eps) for leaf in state if trees.is_differentiable(leaf)), default=0.0
        )
        self.tolerance = max(_TOLERANCE, 32 * coarsest)  # a bfloat16 momentum rounds the finite difference
        self.run: Callable[..., Any] = jax.jit(jax.value_and_grad(adapted), compiler_options=options)

    def non_finite(self, sequence: Any, count: int) -> str | None:
        """Names the leaves whose gradients have a NaN cotangent."""
        bars = jax.tree_util.tree_leaves_with_path(self.run(sequence, count)[1])
        broken = [index for index, (_, leaf) in enumerate(bars) if not np.all(np.isfinite(leaf))]
        if not broken:
            return None
        where = ", ".join(jax.tree_util.keystr(bars[index][0]) for index in broken[:4])
        where += f" and {len(broken) - 4} more" if len(broken) > 4 else ""
        zero = not np.any(jax.tree.leaves(sequence)[broken[0]][0])
        note = "its inner gradient is 0" if zero else f"num_steps={count}"
        return f"the meta-gradient through this optimizer is NaN at {where} ({note})"

    def vanishing(self, sequence: Any, count: int) -> str | None:
        """Tells an update that no gradient moves."""
        if any(np.any(leaf) for leaf in jax.tree.leaves(self.run(sequence, count)[1])):
            return None
        return "the meta-gradient through this optimizer is identically zero"

    def wrong_at_zero(self, sequence: Any, count: int) -> str | None:
        """Where all gradients are zero: NaN, or a derivative that a finite difference contradicts, leaf by leaf."""
        bars = self.run(sequence, count)[1]
        if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(bars)):
            return "the meta-gradient through this optimizer is NaN where the whole inner gradient is 0"
        for path, leaf in jax.tree_util.tree_leaves_with_path(sequence):
            wave = _waves(leaf.shape, 4.0).astype(leaf.dtype)
            direction = jax.tree_util.tree_map_with_path(
                lambda p, g, at=path, w=wave: w if p == at else 0 * g, sequence
            )
            slope = _product(bars, direction)
            ends = [
                self.run(jax.tree.map(lambda g, d, s=sign: g + s * _STEP * d, sequence, direction), count)[0]
                for sign in (1.0, -1.0)
            ]
            measured = float(ends[0] - ends[1]) / (2 * _STEP)
            if not abs(slope - measured) <= self.tolerance * max(abs(slope), abs(measured)):
                return (
                    f"the meta-gradient through this optimizer is wrong at {jax.tree_util.keystr(path)} where the "
                    f"inner gradient is 0: slope {slope:.3g}, but {measured:.3g} by a finite difference of {_STEP:g}"
                )
        return None


def _no_loss(*_: Any) -> jax.Array:
    return jnp.zeros(())


def _lora_pair() -> tuple[Any, Any]:
    """A LoRA pair with B = 0, and its gradient, which is zero for A."""
    params = {"a": _waves((8, 2), 0.0), "b": np.zeros((2, 8))}
    return params, {"a": np.zeros((8, 2)), "b": _waves((2, 8), 1.0)}


def _sequence(grads: Any, length: int, drift: float | None) -> Any:
    """Gradients of all steps, `grads` first, each further from it by `drift`; None makes all of them zero."""

    def stack(leaf: Any) -> np.ndarray:
        wave = _waves(np.shape(leaf), 2.0)
        steps = [0 * wave if drift is None else np.asarray(leaf) + drift * step * wave for step in range(length)]
        return np.stack(steps).astype(jax.dtypes.result_type(leaf))

    return jax.tree.map(stack, grads)


def _product(left: Any, right: Any) -> float:
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return float(sum(np.vdot(np.asarray(a, float), np.asarray(b, float)) for a, b in leaves))


def _waves(shape: tuple[int, ...], phase: float) -> np.ndarray:
    """Fixed numbers without structure that an optimizer could cancel."""
    return np.sin(phase + 1.7 * np.arange(1, 1 + int(np.prod(shape)))).reshape(shape)
