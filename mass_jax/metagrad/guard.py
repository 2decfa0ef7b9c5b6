"""Rejects inner optimizers whose meta-gradient is NaN, zero, or wrong, before training starts."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.metagrad import advice, inner, trees, validation
from mass_jax.metagrad.trees import PyTree

_STEP = 1e-6  # of the finite difference; the derivative at zero must hold for gradients of this size
_TOLERANCE = 1e-2
_EXAMPLES, _NOISE = 8, 15.0  # of the weighted loss whose zero-sum index is measured
GRADIENT_SCALE = 0.03  # typical entry of the inner gradient on the testbed
MIN_ZERO_SUM_INDEX = 0.01
_VANISHING = "the meta-gradient through this optimizer is identically zero"
_MORE_STEPS = 8  # among which one that is enough is searched if the meta-gradient is zero


class ScaleInvariantWarning(UserWarning):
    """The meta-gradient is exact but cannot change a common level of the weights of the inner loss."""


class Fault(NamedTuple):
    """A reason why a meta-gradient is unusable, and the number of inner steps at which it occurs."""

    text: str
    num_steps: int


def check_optimizer(
    optimizer: inner.Optimizer,
    params: PyTree = None,
    grads: PyTree = None,
    *,
    num_steps: int = 2,
    gradient_scale: float = GRADIENT_SCALE,
) -> None:
    r"""Checks that the meta-gradient through an inner optimizer is finite, not zero, and correct at a zero gradient.

    Gradients of exactly zero are common: LoRA starts at B = 0, so the gradient of A is zero at the first step, and if
    all examples of a problem are rejected, the whole gradient is zero at every step. This function differentiates K
    updates at such gradients, on a few numbers and without a model, and compares the derivative at the all-zero
    gradient with a finite difference.

    It also warns of scale-invariant optimizers. If the update does not change when the gradient is scaled, then neither
    does the result when all weights of the inner loss are, so the rewards of the examples sum to zero:

    .. math:: \sum_i w_i r_i = 0, \quad r_i = -\partial L_{out} / \partial w_i

    Args:
        optimizer: inner optimizer; if it is a function of the meta-parameters, pass the optimizer that it returns.
        params: parameters to check at; None means one LoRA pair with B = 0.
        grads: gradient of `params` at the first step; if given, only this gradient is checked.
        num_steps: number of inner steps K in use; some optimizers fail only after several steps.
        gradient_scale: typical absolute entry of the inner gradient, at which scale invariance is measured; `grads`
            have a scale of their own.

    Warns:
        ScaleInvariantWarning: the zero-sum index, the ratio of the absolute sum of w_i r_i to the sum of their absolute
            values, is below 0.01.

    Raises:
        UserError: the meta-gradient is unusable; the message names the leaves, the fault, and the fix.

    >>> import optax
    >>> check_optimizer(optax.adamw(1e-3, eps_root=1e-3))
    >>> check_optimizer(optax.adamw(1e-3))
    Traceback (most recent call last):
    mass_jax.errors.UserError: the meta-gradient through this optimizer is NaN at ['a'] (its inner gradient is 0): ...
    """
    if params is not None and grads is None:
        raise UserError("check_optimizer got params without grads; pass the inner loss's gradient at params")
    if params is not None:
        validation.same_shapes("grads", grads, "params", params)
    if inner.InnerLoop(_no_loss, optimizer, num_steps, False).meta_in_optimizer:
        raise UserError("check_optimizer got a function; pass the optimizer that it returns")
    faults, index = _examine(optimizer, (num_steps,), params, grads, gradient_scale)
    if faults:
        raise UserError(f"{faults[0].text}: {_fix(optimizer, faults[0], params, grads)}")
    if index < MIN_ZERO_SUM_INDEX:
        at = "the given gradient" if params is not None else f"gradient entries near {gradient_scale:g}"
        scale = gradient_scale if params is None else _typical_entry(grads)
        fix = advice.smoother(
            optimizer, scale, lambda other: _is_usable(other, num_steps, params, grads, gradient_scale)
        )
        warnings.warn(
            f"this optimizer is scale-invariant at {at}, so the meta-gradient cannot change a common level of the "
            f"weights (zero-sum index {index:.1g}): {fix}",
            ScaleInvariantWarning,
            stacklevel=2,
        )


def _fix(optimizer: Any, fault: Fault, params: PyTree, grads: PyTree) -> str:
    """Returns one line on how to remove a fault."""
    state_params = params if params is not None else jax.tree.map(np.float32, _lora_pair()[0])
    steps = None
    if fault.text == _VANISHING:
        counts = range(fault.num_steps + 1, fault.num_steps + _MORE_STEPS + 1)
        faulty = {found.num_steps for found in find_faults(optimizer, counts, params, grads)}
        steps = next((count for count in counts if count not in faulty), None)
    return advice.fix_for(
        optimizer, state_params, lambda other: _is_usable(other, fault.num_steps, params, grads, None), steps
    )


def _is_usable(optimizer: Any, num_steps: int, params: PyTree, grads: PyTree, scale: float | None) -> bool:
    """Returns whether an optimizer has no fault, and is not scale-invariant if `scale` is given."""
    try:
        faults, index = _examine(optimizer, (num_steps,), params, grads, scale)
    except UserError:
        return False
    return not faults and index >= MIN_ZERO_SUM_INDEX


def _typical_entry(grads: PyTree) -> float:
    """Returns the root mean square of the entries of a gradient that are not zero."""
    entries = np.concatenate([np.asarray(leaf, float).ravel() for leaf in jax.tree.leaves(grads)])
    return float(np.sqrt(np.mean(entries[entries != 0] ** 2)))


def find_faults(optimizer: Any, counts: Sequence[int], params: PyTree = None, grads: PyTree = None) -> list[Fault]:
    """Finds faults of the meta-gradient, at most one for each of the given numbers of inner steps.

    Raises:
        UserError: the object is not an optimizer, or its update needs more than the gradient.
    """
    return _examine(optimizer, counts, params, grads, None)[0]


def _examine(
    optimizer: Any, counts: Sequence[int], params: PyTree, grads: PyTree, scale: float | None
) -> tuple[list[Fault], float]:
    """Returns the faults, and the zero-sum index at the last count; 1 if there are faults or `scale` is None."""
    if params is not None:
        probe, sequence = _Probe(optimizer, params, max(counts)), _sequence(grads, max(counts), 0.01)
        found = [(probe.non_finite(sequence, count) or probe.vanishing(sequence, count), count) for count in counts]
        faults = [Fault(text, count) for text, count in found if text]
        return faults, 1.0 if faults or scale is None else probe.zero_sum_index(sequence, counts[-1])
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
        if faults or scale is None:
            return faults, 1.0
        usual = _sequence(jax.tree.map(lambda leaf: scale * _waves(leaf.shape, 1.0), params), max(counts), 0.3 * scale)
        return faults, probe.zero_sum_index(usual, counts[-1])


class _Probe:
    """Value and derivative of updates along a sequence of gradients; compiled once for all K up to `limit`."""

    def __init__(self, optimizer: Any, params: PyTree, limit: int) -> None:
        loop = inner.InnerLoop(_no_loss, optimizer, limit, False)

        def adapted(sequence: PyTree, count: Any) -> Any:
            def step(state: inner.InnerState, index_and_grads: Any) -> tuple[inner.InnerState, None]:
                index, grads = index_and_grads
                return jax.lax.cond(index < count, lambda: loop.update(grads, state, None), lambda: state), None

            out = jax.lax.scan(step, loop.start(params, None), (jnp.arange(limit), sequence))[0].params
            parts = jax.tree.map(lambda leaf: jnp.vdot(leaf, _waves(leaf.shape, 3.0).astype(leaf.dtype)), out)
            return jax.tree.reduce(lambda a, b: a + b.astype(a.dtype), parts)

        # Compilation takes nearly all of the time, so XLA's optimizations are off.
        fast = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        options = fast if jax.default_backend() == "cpu" else None
        state = jax.tree.leaves(jax.eval_shape(lambda: loop.start(params, None).opt_state))
        coarsest = max(
            (float(jnp.finfo(leaf.dtype).eps) for leaf in state if trees.is_differentiable(leaf)), default=0.0
        )
        self.tolerance = max(_TOLERANCE, 32 * coarsest)  # a bfloat16 momentum rounds the finite difference
        self.run: Callable[..., Any] = jax.jit(jax.value_and_grad(adapted), compiler_options=options)

    def non_finite(self, sequence: PyTree, count: int) -> str | None:
        """Returns a fault that names the leaves whose gradients have a NaN cotangent, or None."""
        bars = jax.tree_util.tree_leaves_with_path(self.run(sequence, count)[1])
        broken = [index for index, (_, leaf) in enumerate(bars) if not np.all(np.isfinite(leaf))]
        if not broken:
            return None
        where = ", ".join(jax.tree_util.keystr(bars[index][0]) for index in broken[:4])
        where += f" and {len(broken) - 4} more" if len(broken) > 4 else ""
        zero = not np.any(jax.tree.leaves(sequence)[broken[0]][0])
        note = "its inner gradient is 0" if zero else f"num_steps={count}"
        return f"the meta-gradient through this optimizer is NaN at {where} ({note})"

    def vanishing(self, sequence: PyTree, count: int) -> str | None:
        """Returns a fault if no gradient changes the result, or None."""
        if any(np.any(leaf) for leaf in jax.tree.leaves(self.run(sequence, count)[1])):
            return None
        return _VANISHING

    def wrong_at_zero(self, sequence: PyTree, count: int) -> str | None:
        """Returns a fault if, at zero gradients, the derivative is NaN or contradicts a finite difference, or None."""
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

    def zero_sum_index(self, sequence: PyTree, count: int) -> float:
        """Returns the zero-sum index of a weighted loss whose gradients have this sum at each step."""
        bars = self.run(sequence, count)[1]
        spread = [jax.tree.map(lambda leaf, i=i: _waves(leaf.shape, 5.0 + i), sequence) for i in range(_EXAMPLES)]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / _EXAMPLES, *spread)
        # Example i has the gradient g (1 + noise_i) / M with weight 1; the noise of all examples sums to zero.
        terms = [
            _product(jax.tree.map(lambda g, n, m: g * (1 + _NOISE * (n - m)) / _EXAMPLES, sequence, noise, mean), bars)
            for noise in spread
        ]
        total = sum(map(abs, terms))
        return abs(sum(terms)) / total if total else 1.0


def _no_loss(*_: Any) -> jax.Array:
    return jnp.zeros(())


def _lora_pair() -> tuple[Any, Any]:
    """Returns a LoRA pair with B = 0 and its gradient, which is zero for A."""
    params = {"a": _waves((8, 2), 0.0), "b": np.zeros((2, 8))}
    return params, {"a": np.zeros((8, 2)), "b": _waves((2, 8), 1.0)}


def _sequence(grads: PyTree, length: int, drift: float | None) -> Any:
    """Stacks the gradients of all steps: `grads`, then moved by `drift` per step; all zero if `drift` is None."""

    def stack(leaf: Any) -> np.ndarray:
        wave = _waves(np.shape(leaf), 2.0)
        steps = [0 * wave if drift is None else np.asarray(leaf) + drift * step * wave for step in range(length)]
        return np.stack(steps).astype(jax.dtypes.result_type(leaf))

    return jax.tree.map(stack, grads)


def _product(left: Any, right: Any) -> float:
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return float(sum(np.vdot(np.asarray(a, float), np.asarray(b, float)) for a, b in leaves))


def _waves(shape: tuple[int, ...], phase: float) -> np.ndarray:
    """Returns fixed values without a structure that an optimizer could cancel."""
    return np.sin(phase + 1.7 * np.arange(1, 1 + int(np.prod(shape)))).reshape(shape)
