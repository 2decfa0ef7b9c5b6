"""Interface of adjoint methods: the problem that they receive and the result that they return.

Shape suffixes: K inner steps, M examples.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax

from mass_jax.errors import UserError
from mass_jax.metagrad import inner
from mass_jax.metagrad.store import Store
from mass_jax.metagrad.trees import PyTree


class Aux(NamedTuple):
    """Auxiliary results of a meta-gradient.

    Attributes:
        params: adapted parameters, after K steps.
        losses_K: inner loss before each step.
        outer: auxiliary output of the outer loss; None without `has_aux`.
        alignment_KM: inner product of each example's gradient at step t with the cotangent of step t's inner gradient.
            Its sum over the differentiated steps is dL_out/dw. Only adjoints that use the linearity of a `WeightedLoss`
            compute it; None otherwise.
    """

    params: PyTree
    losses_K: jax.Array
    outer: Any
    alignment_KM: jax.Array | None


class MetaGradient(NamedTuple):
    """Result of `meta_gradient`.

    Attributes:
        value: outer loss at the adapted parameters.
        meta: derivative with respect to the meta-parameters, structured like them; integer leaves get zeros.
        params: derivative with respect to the initial parameters if `wrt_params`, else None.
        aux: auxiliary results, see `Aux`.
    """

    value: jax.Array
    meta: PyTree
    params: PyTree | None
    aux: Aux


@dataclasses.dataclass(frozen=True)
class BilevelProblem:
    """A validated problem, as `meta_gradient` passes it to an adjoint.

    Attributes:
        loop: inner loop: loss, optimizer, and number of steps.
        outer_loss: function `params -> (scalar, aux)`; the outer batch is already bound.
        params: initial parameters.
        meta: meta-parameters.
        batch: data of the inner loss.
        wrt_params: whether to also differentiate with respect to the initial parameters.
    """

    loop: inner.InnerLoop
    outer_loss: Callable[[PyTree], tuple[jax.Array, Any]]
    params: PyTree
    meta: PyTree
    batch: PyTree
    wrt_params: bool

    def adapt(self, meta: PyTree) -> inner.Adapted:
        """Runs the inner loop with the given meta-parameters."""
        return inner.run(self.loop, self.params, meta, self.batch)


class Adjoint(abc.ABC):
    """Base class of adjoint methods.

    Subclasses are frozen dataclasses, so that they can be compared, hashed, and printed.

    >>> import dataclasses
    >>> from mass_jax import metagrad as mg
    >>> @dataclasses.dataclass(frozen=True)
    ... class Zero(mg.Adjoint):
    ...     def apply(self, problem):
    ...         adapted = problem.adapt(problem.meta)
    ...         value, outer_aux = problem.outer_loss(adapted.params)
    ...         aux = mg.Aux(adapted.params, adapted.losses_K, outer_aux, None)
    ...         return mg.MetaGradient(value, jax.tree.map(jax.numpy.zeros_like, problem.meta), None, aux)
    >>> Zero()
    Zero()
    """

    @abc.abstractmethod
    def apply(self, problem: BilevelProblem) -> MetaGradient:
        """Computes the meta-gradient of a problem.

        Args:
            problem: validated losses, parameters, and data.

        Returns:
            The `MetaGradient`; its `meta` is structured like `problem.meta`, its `params` like `problem.params` if
            `problem.wrt_params`.

        Raises:
            UserError: the adjoint does not apply to this problem.
        """


def check_remat(remat: str, allowed: object) -> None:
    """Raises a ValueError unless `remat` is one of the values of the literal type `allowed`."""
    names = get_args(allowed)
    if remat == "offload":
        raise UserError("remat='offload' is not supported; use 'save_grads' or 'step' with store=HostStore()")
    if remat not in names:
        raise UserError(f"remat={remat!r} is not one of {', '.join(map(repr, names))}")


def check_store(store: Store | None, remat: str) -> None:
    """Raises a UserError unless `store` is a store or None, and agrees with `remat`."""
    if store is not None and not isinstance(store, Store):
        raise UserError(f"store={store!r} is not a store; give HostStore(), DiskStore(), or None for the device")
    if store is not None and remat in ("recursive", "replay"):
        raise UserError(f"remat={remat!r} keeps its states on the device; use 'step' or 'save_grads' with {store}")


def described(adjoint: Adjoint) -> str:
    """Returns the representation of an adjoint, without its store if it has none."""
    fields = ((field.name, getattr(adjoint, field.name)) for field in dataclasses.fields(adjoint))  # type: ignore[arg-type]
    shown = (f"{name}={value!r}" for name, value in fields if name != "store" or value is not None)
    return f"{type(adjoint).__name__}({', '.join(shown)})"
