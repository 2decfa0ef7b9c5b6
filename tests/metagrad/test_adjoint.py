"""Tests of the adjoint interface: users can add an adjoint by subclassing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CentralDifferences(mg.Adjoint):
    step: float = 1e-5

    def apply(self, problem):
        def value(meta):
            return problem.outer_loss(problem.adapt(meta).params)[0]

        adapted = problem.adapt(problem.meta)
        outer, outer_aux = problem.outer_loss(adapted.params)
        steps = self.step * jnp.eye(problem.meta.size)
        up, down = (jax.vmap(lambda d, s=s: value(problem.meta + s * d))(steps) for s in (1, -1))
        aux = mg.Aux(adapted.params, adapted.losses_K, outer_aux, None)
        return mg.MetaGradient(outer, (up - down) / (2 * self.step), None, aux)


@dataclasses.dataclass(frozen=True)
class TooShort(CentralDifferences):
    def apply(self, problem):
        result = super().apply(problem)
        return result._replace(meta=result.meta[1:])


def gradient(toy, adjoint, **settings):
    return mg.meta_gradient(
        mg.WeightedLoss(toy.examples), toy.outer, toy.whole, toy.weights, toy.batch, toy.outer_batch,
        optimizer=optax.sgd(0.3), num_steps=2, adjoint=adjoint, **settings,
    )  # fmt: skip


def test_adjoint_subclass_computes_meta_gradient(toy, fast):
    found, expected = fast(lambda: (gradient(toy, CentralDifferences()), gradient(toy, mg.MixedMode())))()
    np.testing.assert_allclose(found.meta, expected.meta, rtol=1e-6)
    np.testing.assert_allclose(found.aux.losses_K, expected.aux.losses_K, rtol=1e-12)


def test_adjoint_subclass_works_in_compare_adjoints(toy):
    found = mg.compare_adjoints(
        mg.WeightedLoss(toy.examples), toy.outer, toy.whole, toy.weights, toy.batch, toy.outer_batch,
        estimates={"differences": CentralDifferences()}, optimizer=optax.sgd(0.3), num_steps=2,
    )  # fmt: skip
    np.testing.assert_allclose(found["differences"], 1.0, rtol=1e-6)


def test_adjoint_with_wrong_shape_is_rejected(toy):
    with pytest.raises(UserError, match=r"the meta-gradient of TooShort.* structure and shapes of meta") as caught:
        gradient(toy, TooShort())
    assert "\n" not in str(caught.value)


def test_adjoint_without_params_gradient_is_rejected(toy):
    with pytest.raises(UserError, match="the params gradient of CentralDifferences"):
        gradient(toy, CentralDifferences(), wrt_params=True)


def test_adjoint_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        mg.Adjoint()
