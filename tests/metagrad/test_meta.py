"""Tests of meta_gradient: exact adjoints agree with each other and with finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mass_jax import metagrad as mg

CHAINS = {
    "sgd": (1, lambda: optax.sgd(0.3)),
    "momentum": (2, lambda: optax.sgd(0.2, momentum=0.9, nesterov=True)),
    "adam": (3, lambda: optax.adam(0.05, eps_root=1e-8)),
    "adamw clipped": (4, lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.05, eps_root=1e-8))),
    "rmsprop scheduled": (6, lambda: optax.rmsprop(optax.cosine_decay_schedule(0.05, 9))),
    # Its trust ratio has no derivative with respect to a zero leaf of the initial parameters, as in LoRA.
    "lamb": (5, lambda: optax.lamb(0.05, eps_root=1e-4)),
    "injected": (7, lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.2, momentum=0.5)),
    "decayed, masked": (8, lambda: optax.chain(optax.add_decayed_weights(0.1, mask=_only_first), optax.yogi(0.05))),
    "schedule-free": (3, lambda: optax.contrib.schedule_free_sgd(0.3)),
}
EXACT = [
    *(mg.ReverseUnroll(remat) for remat in ("step", "save_grads", "recursive")),
    *(mg.MixedMode(remat) for remat in ("save_grads", "step", "recursive")),
    *(mg.WeightedMixedMode(remat) for remat in ("save_grads", "step", "recursive", "replay")),
]


def _only_first(params):
    return {name: name in "aw" for name in params}


def close(left, right, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        scale = max(float(jnp.linalg.norm(b)), 1e-30)
        assert float(jnp.linalg.norm(a - b)) <= tolerance * scale


@pytest.mark.parametrize("name", CHAINS)
def test_exact_adjoints_agree_for_all_policies(name, toy, fast):
    num_steps, build = CHAINS[name]
    params = toy.whole if num_steps % 2 else toy.lora

    def gradient(weights, params, adjoint, wrt_params=True, **chunks):
        return mg.meta_gradient(
            mg.WeightedLoss(toy.examples, **chunks), toy.outer, params, weights, toy.batch, toy.outer_batch,
            optimizer=build(), num_steps=num_steps, adjoint=adjoint, wrt_params=wrt_params,
        )  # fmt: skip

    @fast
    def everything(weights, params):
        found = [gradient(weights, params, adjoint) for adjoint in EXACT]
        found.append(gradient(weights, params, mg.WeightedMixedMode(), chunk=2, product_chunk=1))
        alone = [gradient(weights, params, adjoint, False) for adjoint in (mg.Truncated(num_steps), EXACT[-1])]
        return gradient(weights, params, mg.ReverseUnroll()), found, alone

    reference, found, alone = everything(toy.weights, params)
    assert float(jnp.linalg.norm(reference.meta)) > 0
    for each in found:
        close((each.value, each.meta, each.params), (reference.value, reference.meta, reference.params))
        close((each.aux.params, each.aux.losses_K), (reference.aux.params, reference.aux.losses_K))
    for each in alone:
        close(each.meta, reference.meta)
        close(jnp.sum(each.aux.alignment_KM, axis=0), reference.meta)


@pytest.mark.parametrize("which", ["lora", "whole"])
def test_meta_gradient_matches_finite_differences(which, toy, fast):
    params = getattr(toy, which)
    optimizer = optax.adamw(0.05, eps_root=1e-3)
    loss = mg.WeightedLoss(toy.examples)

    def outer(weights, params):
        adapted = mg.adapt(loss, params, weights, toy.batch, optimizer=optimizer, num_steps=3)
        return toy.outer(adapted.params, toy.outer_batch)

    @fast
    def gradient(weights, params):
        return mg.meta_gradient(
            loss, toy.outer, params, weights, toy.batch, toy.outer_batch,
            optimizer=optimizer, num_steps=3, adjoint=mg.WeightedMixedMode(), wrt_params=True,
        )  # fmt: skip

    got = gradient(toy.weights, params)
    steps = 1e-5 * jnp.concatenate([jnp.eye(4), -jnp.eye(4)])
    values = fast(jax.vmap(outer, (0, None)))(toy.weights + steps, params)
    close(got.meta, (values[:4] - values[4:]) / 2e-5, 1e-6)
    direction = jax.tree.map(jnp.cos, params)
    moved = [jax.tree.map(lambda p, d, s=s: p + s * 1e-5 * d, params, direction) for s in (1, -1)]
    slope = (fast(outer)(toy.weights, moved[0]) - fast(outer)(toy.weights, moved[1])) / 2e-5
    close(optax.tree.vdot(got.params, direction), slope, 1e-6)


def test_meta_gradient_covers_learning_rate_and_scorer(toy, fast):
    def optimizer(meta):
        return optax.chain(
            optax.trace(meta["decay"]), optax.inject_hyperparams(optax.sgd)(learning_rate=jnp.exp(meta["log_rate"]))
        )

    def scores(meta, batch):
        return jax.nn.sigmoid(jnp.sum(batch["x"], axis=(1, 2)) * meta["scorer"])

    meta = {"decay": jnp.array(0.5), "log_rate": jnp.array(-1.0), "scorer": jnp.array(0.3), "steps": jnp.array(7)}
    weighted = mg.WeightedLoss(toy.examples, weights=scores)

    @fast
    def gradients(meta):
        return [
            mg.meta_gradient(
                weighted, toy.outer, toy.lora, meta, toy.batch, toy.outer_batch,
                optimizer=optimizer, num_steps=3, adjoint=adjoint,
            ).meta
            for adjoint in (mg.ReverseUnroll(), mg.MixedMode(), mg.WeightedMixedMode())
        ]  # fmt: skip

    reference, *others = gradients(meta)
    assert all(float(reference[name]) != 0 for name in ("decay", "log_rate", "scorer"))
    for each in others:
        close(each, reference)
        assert each["steps"] == 0
        assert each["steps"].dtype == meta["steps"].dtype


def test_meta_gradient_with_batch_per_step(toy, fast):
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1], jnp.roll(leaf, 1, 0)]), toy.batch)

    @fast
    def gradients(weights):
        return [
            mg.meta_gradient(
                mg.WeightedLoss(toy.examples), toy.outer, toy.lora, weights, batches, toy.outer_batch,
                optimizer=optax.sgd(0.3), num_steps=3, adjoint=adjoint, batch_per_step=True,
            ).meta
            for adjoint in (mg.ReverseUnroll(), mg.MixedMode("recursive"), mg.WeightedMixedMode())
        ]  # fmt: skip

    reference, *others = gradients(toy.weights)
    for each in others:
        close(each, reference)


def test_masked_examples_have_zero_meta_gradient(toy, fast):
    batch = {**toy.batch, "real": jnp.array([1, 0, 1, 0])}
    got = _simple(toy, fast, batch=batch)(toy.weights)
    np.testing.assert_array_equal(got.meta == 0, [False, True, False, True])
    np.testing.assert_array_equal(got.aux.alignment_KM[:, 1], 0)


def _simple(toy, fast, adjoint=None, num_steps=2, optimizer=None, **changes):
    adjoint, optimizer = adjoint or mg.WeightedMixedMode(), optimizer or optax.sgd(0.3)
    toy = dataclasses.replace(toy, **changes)
    return fast(
        lambda weights: mg.meta_gradient(
            mg.WeightedLoss(toy.examples), toy.outer, toy.lora, weights, toy.batch, toy.outer_batch,
            optimizer=optimizer, num_steps=num_steps, adjoint=adjoint,
        )
    )  # fmt: skip


def test_vmap_equals_loop_over_problems(toy, fast):
    def gradient(weights, params, batch, outer_batch):
        return mg.meta_gradient(
            mg.WeightedLoss(toy.examples, chunk=2), toy.outer, params, weights, batch, outer_batch,
            optimizer=optax.adamw(0.05, eps_root=1e-8), num_steps=2, adjoint=mg.WeightedMixedMode(),
        )  # fmt: skip

    def task(i):
        shift = lambda leaf: leaf + jnp.asarray(i, leaf.dtype) * jnp.ones_like(leaf)  # noqa: E731
        data = {**toy.batch, "x": shift(toy.batch["x"])}
        return shift(toy.weights), jax.tree.map(shift, toy.lora), data, toy.outer_batch

    tasks = [task(i) for i in range(3)]
    together = fast(jax.vmap(gradient))(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks))
    one = fast(gradient)
    for i, each in enumerate(tasks):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], together), one(*each))


def _count(jaxpr, name, times=1):
    total = 0
    for equation in jaxpr.eqns:
        total += times * (equation.primitive.name == name)
        inside = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += _count(inner, name, inside)
    return total


@pytest.mark.parametrize(("adjoint", "products"), [(mg.WeightedMixedMode(), 3), (mg.FirstOrder(), 0)])
@pytest.mark.parametrize("remat", ["save_grads", "recursive"])
def test_adjoint_computes_expected_hessian_products(adjoint, products, remat):
    # lgamma's derivative is digamma, digamma's is polygamma: only a second derivative evaluates it.
    def examples(params, batch):
        return jax.lax.lgamma(params * batch)

    if products:
        adjoint = mg.WeightedMixedMode(remat)
    jaxpr = jax.make_jaxpr(
        lambda params: mg.meta_gradient(
            mg.WeightedLoss(examples), lambda p, b: p * b, params, jnp.ones(3), jnp.ones(3), jnp.float32(1.0),
            optimizer=optax.sgd(0.1), num_steps=4, adjoint=adjoint,
        )
    )(jnp.float32(2.0))  # fmt: skip
    assert _count(jaxpr.jaxpr, "digamma") > 0
    assert _count(jaxpr.jaxpr, "polygamma") == products


def test_biased_adjoints_match_their_definition(toy, fast):
    exact = _simple(toy, fast, num_steps=3)(toy.weights)
    last = _simple(toy, fast, mg.Truncated(1), num_steps=3)(toy.weights)
    close(last.meta, exact.aux.alignment_KM[-1])
    assert last.aux.losses_K.shape == (3,)
    first = _simple(toy, fast, mg.FirstOrder(), num_steps=3)(toy.weights)
    # With SGD, the cotangent of every step is -rate times the outer gradient.
    outer = jax.grad(toy.outer)(first.aux.params, toy.outer_batch)
    direction = jax.tree.map(lambda leaf: -0.3 * leaf, outer)
    _, start = jax.jvp(lambda p: toy.examples(p, toy.batch), (toy.lora,), (direction,))
    close(first.aux.alignment_KM[0], start)
    assert float(jnp.linalg.norm(first.meta - exact.meta)) > 1e-3 * float(jnp.linalg.norm(exact.meta))
    close(_simple(toy, fast, mg.FirstOrder(), 1)(toy.weights).meta, _simple(toy, fast, None, 1)(toy.weights).meta)


def test_meta_gradient_with_aux_compiles_once(toy, fast):
    traces = []

    @fast
    def gradient(weights):
        traces.append(1)
        return mg.meta_gradient(
            mg.WeightedLoss(toy.examples), lambda p, b: (toy.outer(p, b), {"count": jnp.array(3)}), toy.lora, weights,
            toy.batch, toy.outer_batch, optimizer=optax.sgd(0.3), num_steps=2, has_aux=True,
        )  # fmt: skip

    first, second = gradient(toy.weights), gradient(toy.weights * 2)
    assert len(traces) == 1
    assert first.aux.outer["count"] == 3
    assert float(first.value) != float(second.value)
    assert first.params is None


def test_meta_gradient_rejects_integer_weights():
    loss = mg.WeightedLoss(lambda params, batch: (params - batch) ** 2)
    with pytest.raises(ValueError, match="weights are int32, which has no derivative"):
        mg.meta_gradient(
            loss, lambda p, b: p, jnp.float32(1.0), jnp.ones(4, jnp.int32), jnp.ones(4), None,
            optimizer=optax.sgd(0.1), num_steps=2,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps=0"),
        ({"adjoint": mg.WeightedMixedMode()}, "needs inner_loss=WeightedLoss"),
        ({"adjoint": mg.FirstOrder}, "is not an adjoint; pass an instance"),
        ({"adjoint": "first_order"}, "adjoint='first_order' is not an adjoint"),
        ({"adjoint": mg.Truncated(1), "wrt_params": True}, "cuts off the initial parameters"),
        ({"batch_per_step": True}, r"leading axis of num_steps=2.*\(4,\)"),
    ],
)
def test_meta_gradient_names_invalid_argument(settings, message):
    with pytest.raises(ValueError, match=message):
        mg.meta_gradient(
            lambda params, meta, batch: params * jnp.sum(meta * batch), lambda p, b: p, jnp.float32(1.0), jnp.ones(4),
            jnp.ones(4), None, **{"optimizer": optax.sgd(0.1), "num_steps": 2, **settings},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mg.ReverseUnroll("blocks"), "remat='blocks' is not one of 'none', 'step'"),
        (lambda: mg.MixedMode("offload"), "'offload' is not supported"),
        (lambda: mg.Truncated(0), "give at least 1"),
    ],
)
def test_adjoint_rejects_invalid_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()
