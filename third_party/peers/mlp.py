"""Small problem that every library can run: a two-layer network, adapted with a weight per example, in float64.

Shape suffixes: M examples, B outer rows, D inputs, H hidden units, C outputs.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mass_jax import metagrad as mg
from mass_jax.metagrad import signal

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shapes of one problem."""

    inputs: int = 64
    hidden: int = 512
    outputs: int = 16
    examples: int = 256


@dataclasses.dataclass(frozen=True)
class Inner:
    """Inner optimizer, in terms that all libraries share; without `adam`, plain gradient descent."""

    rate: float
    adam: bool = False
    eps: float = 1e-8
    eps_root: float = 0.0

    def optax(self) -> optax.GradientTransformation:
        """Returns the optimizer of optax."""
        if self.adam:
            return optax.adam(self.rate, eps=self.eps, eps_root=self.eps_root)
        return optax.sgd(self.rate)


def draw(seed: int, shape: Shape) -> Arrays:
    """Samples parameters `w1`, `w2`, data `x`, `y`, `outer_x`, `outer_y`, and `weights`; NumPy arrays of float64."""
    generator = np.random.default_rng(seed)
    rows, D, H, C = shape.examples, shape.inputs, shape.hidden, shape.outputs
    return {
        "w1": generator.normal(size=(D, H)) / D**0.5,
        "w2": generator.normal(size=(H, C)) / H**0.5,
        "x": generator.normal(size=(rows, D)),
        "y": generator.normal(size=(rows, C)),
        "outer_x": generator.normal(size=(rows, D)),
        "outer_y": generator.normal(size=(rows, C)),
        "weights": generator.uniform(size=rows) / rows,
    }


def losses(params: Any, batch: Any) -> jax.Array:
    """Computes the mean squared error of each example, [M]."""
    hidden_MH = jnp.tanh(batch["x"] @ params["w1"])
    return jnp.mean((hidden_MH @ params["w2"] - batch["y"]) ** 2, axis=1)


def outer_loss(params: Any, batch: Any) -> jax.Array:
    """Computes the mean of the losses."""
    return jnp.mean(losses(params, batch))


def plain_jax(data: Any, inner: Inner, num_steps: int) -> jax.Array:
    """Computes dL_out/dw, [M], by `jax.grad` through a Python loop: reverse over reverse."""
    optimizer, (params, batch, outer) = inner.optax(), _parts(data)

    def loss(weights_M: jax.Array) -> jax.Array:
        phi, state = params, optimizer.init(params)
        for _ in range(num_steps):
            gradient = jax.grad(lambda phi: weights_M @ losses(phi, batch))(phi)
            updates, state = optimizer.update(gradient, state, phi)
            phi = optax.apply_updates(phi, updates)
        return outer_loss(phi, outer)

    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        return jax.grad(loss)(data["weights"])


def mixed_mode(data: Any, inner: Inner, num_steps: int, adjoint: mg.Adjoint) -> jax.Array:
    """Computes dL_out/dw, [M], by `mass_jax.metagrad`."""
    params, batch, outer = _parts(data)
    return mg.meta_gradient(
        mg.WeightedLoss(losses),
        outer_loss,
        params,
        data["weights"],
        batch,
        outer,
        optimizer=inner.optax(),
        num_steps=num_steps,
        adjoint=adjoint,
    ).meta


def metasmoothness(data: Any, inner: Inner, num_steps: int, key: jax.Array, step: float) -> float:
    """Measures the metasmoothness along one random direction, by `mass_jax.metagrad.validate`.

    Args:
        data: from `draw`.
        inner: the inner optimizer.
        num_steps: number of inner steps.
        key: random key of the direction; see `direction`.
        step: step along the direction, relative to each weight.
    """
    params, batch, outer = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], _parts(data))
    report = mg.validate(
        mg.WeightedLoss(losses),
        outer_loss,
        params,
        jnp.asarray(data["weights"])[None],
        batch,
        outer,
        optimizer=inner.optax(),
        num_steps=num_steps,
        key=key,
        options=signal.Options(False, False, directions=1, perturbation=step, precision=False),
    )
    return float(report["metasmoothness"])


def direction(key: jax.Array, num_examples: int) -> np.ndarray:
    """Returns the direction in the space of weights, [M], that `metasmoothness` follows."""
    return np.asarray(jax.random.normal(key, (num_examples,), jnp.float64))


def _parts(data: Any) -> tuple[Any, Any, Any]:
    """Returns parameters, batch and outer batch."""
    return (
        {"w1": data["w1"], "w2": data["w2"]},
        {"x": data["x"], "y": data["y"]},
        {"x": data["outer_x"], "y": data["outer_y"]},
    )
