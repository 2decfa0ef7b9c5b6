"""Rejects forward mode through `mixed_grad`, which has a reverse-mode derivative only."""

from typing import Any, NoReturn

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from mass_jax.errors import UserError
from mass_jax.metagrad import trees


class ForwardModeError(UserError, TypeError):
    """Error for forward mode through `mixed_grad`; also a TypeError, which JAX raises for `custom_vjp` functions."""


def refuse_forward_mode(leaf: Any) -> Any:
    """Returns `leaf`; reverse mode passes through, forward mode raises an error that names `mixed_grad`.

    >>> import jax, jax.numpy as jnp
    >>> jax.grad(lambda x: refuse_forward_mode(x) ** 2)(3.0).tolist()
    6.0
    """
    return _identity(leaf) if trees.is_differentiable(leaf) else leaf


@jax.custom_jvp
def _identity(leaf: Any) -> Any:
    return leaf


# A linear primitive that can be transposed, but neither evaluated nor compiled.
_tangent = Primitive("mixed_grad_tangent")


@_identity.defjvp
def _identity_jvp(primals: Any, tangents: Any) -> Any:
    return _identity(primals[0]), _tangent.bind(tangents[0])  # marks the value for further derivatives


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise ForwardModeError(
        "mixed_grad has no forward-mode derivative (jax.jvp, jax.jacfwd, jax.hessian, or a mixed_grad or "
        "meta_gradient around it); use jax.grad in place of this mixed_grad, or jax.grad and jax.jacrev outside"
    )


_tangent.def_impl(_refuse)
_tangent.def_abstract_eval(lambda tangent: tangent)
ad.primitive_jvps[_tangent] = _refuse
ad.primitive_transposes[_tangent] = lambda cotangent, _: [cotangent]
batching.defvectorized(_tangent)
mlir.register_lowering(_tangent, _refuse)
