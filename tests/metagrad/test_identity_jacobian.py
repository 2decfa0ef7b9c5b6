"""Tests of T1-T2 and SAMA against exact adjoints and their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError


def gradient(toy, adjoint, optimizer, num_steps, loss=None, **settings):
    return mg.meta_gradient(
        loss or mg.WeightedLoss(toy.examples), toy.outer, toy.whole, toy.weights, toy.batch, toy.outer_batch,
        optimizer=optimizer, num_steps=num_steps, adjoint=adjoint, **settings,
    )  # fmt: skip


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14), found, expected)


def test_parity_with_exact_and_truncated(toy, fast):
    sgd, adam = optax.sgd(0.3), optax.adam(0.1, eps_root=1e-4)
    general = mg.WeightedLoss(toy.examples).__call__  # without linearity: JointDerivatives

    @fast
    def everything():
        one = gradient(toy, mg.T1T2(0.3), sgd, 1), gradient(toy, mg.MixedMode(), sgd, 1)
        three = [
            gradient(toy, adjoint, sgd, 3)
            for adjoint in (mg.T1T2(0.3), mg.SAMA("last_step"), mg.Truncated(1), mg.T1T2(0.3, "adapted"), mg.SAMA())
        ]
        preconditioned = [gradient(toy, a, adam, 2).meta for a in (mg.SAMA("last_step"), mg.Truncated(1), mg.SAMA())]
        joint = [gradient(toy, adjoint, sgd, 3, general).meta for adjoint in (mg.T1T2(0.3), mg.SAMA())]
        return one, three, preconditioned, joint

    (t1t2, exact), three, (before, truncated, after), joint = everything()
    close((t1t2.value, t1t2.meta, t1t2.aux.params, t1t2.aux.losses_K), (exact.value, exact.meta, *exact.aux[:2]))
    for other in three[1:3]:
        close((other.value, other.meta, other.aux.losses_K), (three[0].value, three[0].meta, three[0].aux.losses_K))
    close(
        (three[4].value, three[4].meta, three[4].aux.losses_K), (three[3].value, three[3].meta, three[3].aux.losses_K)
    )
    close(joint, [three[0].meta, three[4].meta])
    close(before, truncated)
    assert float(jnp.linalg.norm(three[4].meta - three[0].meta)) > 1e-3 * float(jnp.linalg.norm(three[0].meta))
    assert float(jnp.linalg.norm(after - before)) > 1e-3 * float(jnp.linalg.norm(before))


def test_sama_uses_optimizer_at_adapted_parameters(toy, fast):
    optimizer = optax.adam(0.1, eps_root=1e-4)

    @fast
    def both():
        found = gradient(toy, mg.SAMA(), optimizer, 2)
        loss = mg.WeightedLoss(toy.examples)
        adapted = mg.adapt(loss, toy.whole, toy.weights, toy.batch, optimizer=optimizer, num_steps=2)

        def step(weights):
            grads = jax.grad(loss)(adapted.params, weights, toy.batch)
            with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
                updates, _ = optimizer.update(grads, adapted.opt_state, adapted.params)
            return optax.apply_updates(adapted.params, updates)

        _, pull = jax.vjp(step, toy.weights)
        return found.meta, pull(jax.grad(toy.outer)(adapted.params, toy.outer_batch))[0]

    close(*both())


def test_sama_differentiates_hyperparameters(toy, fast):
    def loss(params, meta, batch):
        return jnp.vdot(meta["weights"], toy.examples(params, batch))

    @fast
    def both():
        meta = {"weights": toy.weights, "rate": jnp.asarray(0.3)}
        return [
            mg.meta_gradient(
                loss, toy.outer, toy.whole, meta, toy.batch, toy.outer_batch,
                optimizer=lambda meta: optax.sgd(meta["rate"]), num_steps=2, adjoint=adjoint,
            ).meta
            for adjoint in (mg.SAMA("last_step"), mg.Truncated(1))
        ]  # fmt: skip

    close(*both())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mg.T1T2(0.0), r"T1T2\(rate=0.0\) needs a positive"),
        (lambda: mg.T1T2(float("nan")), "needs a positive"),
        (lambda: mg.T1T2(0.1, "first_step"), "point='first_step' is not one of 'last_step', 'adapted'"),
        (lambda: mg.SAMA("end"), "point='end' is not one of"),
    ],
)
def test_invalid_settings_are_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize(
    ("adjoint", "settings", "message"),
    [
        (mg.SAMA(), {"wrt_params": True}, "says nothing about the initial parameters; use MixedMode"),
        (mg.T1T2(0.1), {"optimizer": lambda meta: optax.sgd(meta[0])}, "ignores how the optimizer depends"),
    ],
)
def test_problems_that_do_not_apply_are_refused(toy, adjoint, settings, message):
    with pytest.raises(UserError, match=message):
        gradient(toy, adjoint, **{"optimizer": optax.sgd(0.1), "num_steps": 2, **settings})
