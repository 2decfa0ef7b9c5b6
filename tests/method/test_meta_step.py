"""The real meta-step of the real model: exactness, independence of tasks, warm-up, faults."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import metagrad as mg
from mass_jax.llama import lora
from mass_jax.method import adapt, meta_step, score
from mass_jax.method.adapt import ADJOINTS, OPTIMIZERS
from mass_jax.method.models import Weights
from mass_jax.method.outer import outer_loss


def widen(tree):
    """Floating leaves in float64; the caller runs under x64."""

    def one(leaf):
        return jnp.asarray(leaf, jnp.float64) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)


def relative(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.fixture
def wide(parts, make_batch, problems, keys):
    """Weights, scores and a batch in float64."""
    batch = widen(make_batch(problems, keys))
    scores = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, batch.right_NJ.shape[:1] + (4,)))
    return Weights({}, widen(parts.params)), scores, batch


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_score_gradients_equal_reverse_over_reverse(x64, parts, wide, replace_loop, optimizer):
    learner = replace_loop(parts.learner("gold"), optimizer=OPTIMIZERS[optimizer](0.05))
    found = {
        name: jax.jit(functools.partial(meta_step.score_gradients, replace_loop(learner, adjoint=ADJOINTS[name]())))(
            *wide
        )
        for name in ("weighted", "reverse")
    }
    assert relative(found["weighted"].meta, found["reverse"].meta) < 1e-10
    np.testing.assert_allclose(found["weighted"].value, found["reverse"].value, rtol=1e-12)
    assert (found["weighted"].meta[:, 3] == 0).all()  # the example that did not parse
    assert (jnp.abs(found["weighted"].meta[:, :3]) > 0).all()


def test_score_gradients_equal_central_differences(x64, parts, wide):
    weights, scores, batch = wide
    learner = parts.learner("gold")

    @jax.jit
    def losses(scores_NM):
        adapted = adapt.adapt(learner.loop, weights, batch.adapters, scores_NM, batch.examples)
        of_task = functools.partial(outer_loss, parts.solver, weights)
        return jax.vmap(of_task)(adapted, batch.solutions.text, batch.right_NJ)

    exact = jax.jit(functools.partial(meta_step.score_gradients, learner))(weights, scores, batch).meta
    step = 1e-4
    for m in range(3):
        shift = jnp.zeros_like(scores).at[:, m].set(step)
        numeric = (losses(scores + shift) - losses(scores - shift)) / (2 * step)
        np.testing.assert_allclose(exact[:, m], numeric, rtol=1e-6, atol=1e-9)


def test_sharing_a_batch_does_not_change_a_task(x64, parts, wide):
    weights, scores, batch = wide
    run = jax.jit(functools.partial(meta_step.score_gradients, parts.learner("gold")))
    together = run(weights, scores, batch).meta
    for n in range(scores.shape[0]):
        one = jax.tree.map(lambda leaf, n=n: leaf[n : n + 1], (scores, batch))
        np.testing.assert_allclose(run(weights, *one).meta[0], together[n], rtol=1e-12, atol=1e-14)


def test_the_scorer_gradient_is_that_of_the_whole_objective(x64, parts, wide):
    """VJP of the scorer outside the unroll = gradient of the mean outer loss through scorer and inner loop at once."""
    weights, _, batch = wide
    learner = parts.learner("gold")
    eta = widen(score.init(jax.random.key(1), learner.scorer))
    eta["head"]["kernel"] = jax.random.normal(jax.random.key(2), eta["head"]["kernel"].shape)

    @jax.jit
    def by_parts(eta):
        scores, pull = jax.vjp(lambda e: score.scores(learner.scorer, e, batch.scorer_texts), eta)
        return pull(meta_step.score_gradients(learner, weights, scores, batch).meta / scores.shape[0])[0]

    @jax.jit
    @jax.grad
    def whole(eta):
        scores = score.scores(learner.scorer, eta, batch.scorer_texts)
        adapted = adapt.adapt(learner.loop, weights, batch.adapters, scores, batch.examples)
        of_task = functools.partial(outer_loss, parts.solver, weights)
        return jax.vmap(of_task)(adapted, batch.solutions.text, batch.right_NJ).mean()

    flat = [jax.flatten_util.ravel_pytree(f(eta))[0] for f in (by_parts, whole)]
    assert relative(*flat) < 1e-10


def run_step(parts, batch, learner, step=0, policy=None):
    policy = jax.tree.map(jnp.copy, parts.params) if policy is None else policy
    state = meta_step.init_state(jax.random.key(0), learner, policy)._replace(step=jnp.asarray(step, jnp.int32))
    new, output = jax.jit(functools.partial(meta_step.meta_step, learner))(state, {}, batch, jax.random.key(1))
    return state, new, output


def moved(before, after):
    return any(bool((a != b).any()) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


def test_warm_up_moves_the_scorer_only_and_later_steps_move_both(parts, make_batch, problems, keys):
    batch, learner = make_batch(problems, keys), parts.learner("gold")
    before, after, _ = run_step(parts, batch, learner, step=0)
    assert moved(before.scorer, after.scorer)
    assert not moved(before.policy, after.policy)
    before, after, _ = run_step(parts, batch, learner, step=learner.warmup_steps)
    assert moved(before.scorer, after.scorer)
    assert moved(before.policy, after.policy)


def test_a_batch_in_which_nothing_parses_and_nothing_is_right_is_counted_and_moves_nothing_wrongly(
    parts, make_batch, problems, keys
):
    batch = make_batch(problems, keys)
    blank = jax.tree.map(jnp.zeros_like, batch.examples)
    attempts = batch.solutions
    batch = batch._replace(examples=blank, right_NJ=np.zeros_like(batch.right_NJ), solutions=attempts)
    learner = parts.learner("verifier")
    before, after, output = run_step(parts, batch, learner, step=learner.warmup_steps)
    assert int(output.metrics["tasks_without_signal"]) == len(problems)
    assert (output.rewards_NM == 0).all()
    assert not moved(before.scorer, after.scorer)
    assert not moved(before.policy, after.policy)
    assert int(after.step) == int(before.step) + 1


def test_non_finite_weights_are_skipped_and_counted(parts, make_batch, problems, keys):
    batch, learner = make_batch(problems, keys), parts.learner("gold")
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), parts.params)
    before, after, output = run_step(parts, batch, learner, step=learner.warmup_steps, policy=broken)
    assert int(output.metrics["tasks_not_finite"]) == len(problems)
    assert int(after.policy_opt_state.notfinite_count) == 1
    assert not moved(before.scorer, after.scorer)


def test_one_bad_task_does_not_spoil_the_others(parts, make_batch, problems, keys):
    batch, learner = make_batch(problems, keys), parts.learner("gold")
    bad = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), batch.adapters)
    _, after, output = run_step(parts, batch._replace(adapters=bad), learner, step=learner.warmup_steps)
    assert int(output.metrics["tasks_not_finite"]) == 1
    assert (output.rewards_NM[0] == 0).all()
    assert (output.rewards_NM[1:, :3] != 0).all()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((after.policy, after.scorer)))


def test_shuffled_rewards_are_the_same_rewards_in_another_order(parts, make_batch, problems, keys):
    batch = make_batch(problems, keys)
    straight, shuffled = parts.learner("gold"), parts.learner("gold", control="shuffled")
    (_, one, output), (_, two, again) = (run_step(parts, batch, x, straight.warmup_steps) for x in (straight, shuffled))
    np.testing.assert_array_equal(output.rewards_NM, again.rewards_NM)
    assert moved(one.policy, two.policy)


def test_a_generator_with_its_own_adapter_acts_as_the_merged_one(x64, parts, wide):
    """Generator adapter and inner adapter together = inner adapter over merged weights, to rounding."""
    _, scores, batch = wide
    base = widen(parts.params)
    config = parts.solver.config
    own = lora.init(jax.random.key(3), config, rank=2)
    own = jax.tree.map(lambda leaf: 0.1 * jax.random.normal(jax.random.key(4), leaf.shape, leaf.dtype), own)
    learner = parts.learner("gold")
    adapted_solver = dataclasses.replace(learner.solver, generator="lora")
    over_adapter = dataclasses.replace(learner, loop=dataclasses.replace(learner.loop, solver=adapted_solver))
    one = jax.jit(functools.partial(meta_step.score_gradients, over_adapter))(Weights(base, own), scores, batch)
    merged = Weights({}, lora.merge(base, own))
    two = jax.jit(functools.partial(meta_step.score_gradients, learner))(merged, scores, batch)
    assert relative(one.meta, two.meta) < 1e-10


def test_first_order_is_another_number_so_the_tests_above_can_fail(x64, parts, wide, replace_loop):
    learner = replace_loop(parts.learner("gold"), adjoint=mg.FirstOrder())
    biased = jax.jit(functools.partial(meta_step.score_gradients, learner))(*wide).meta
    exact = jax.jit(functools.partial(meta_step.score_gradients, parts.learner("gold")))(*wide).meta
    assert relative(biased, exact) > 1e-4
