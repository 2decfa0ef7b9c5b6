"""Meta-step of the embedded model: exactness, independence of problems, warm-up and faults."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mass_jax import metagrad as mg
from mass_jax.llama import lora
from mass_jax.method import drift, finite, meta_step, outer_optimizer, rejected, rewards, score
from mass_jax.method.models import Solver, Weights
from mass_jax.method.outer import adapted_losses
from mass_jax.training.architecture import execution, models
from mass_jax.training.learners import mass_learner
from tests.rollouts import random_rollout

gradients = jax.jit(meta_step.score_gradients, static_argnames="learner")


def widen(tree):
    """Casts floating-point leaves to float64; requires x64."""

    def one(leaf):
        return (
            jnp.asarray(np.asarray(leaf, np.float64)) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf
        )

    return jax.tree.map(one, tree)


def relative(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def with_loop(learner, **changes):
    return dataclasses.replace(learner, loop=dataclasses.replace(learner.loop, **changes))


@pytest.fixture
def wide(components, batch):
    """Weights, scores and a batch in float64."""
    scores = np.random.default_rng(0).uniform(0.2, 0.8, (batch.right_NJ.shape[0], 4))
    return Weights({}, widen(components.model.params)), jnp.asarray(scores), widen(batch)


@functools.partial(jax.jit, static_argnames="learner")
def outer_losses(learner, weights, scores_NM, batch):
    solutions = batch.solutions.text
    return adapted_losses(learner.loop, weights, batch.adapters, scores_NM, batch.examples, solutions, batch.right_NJ)


def test_score_gradients_equal_reverse_over_reverse(x64, learner, wide):
    found = gradients(learner("gold"), *wide)
    exact = gradients(with_loop(learner("gold"), adjoint=mg.ReverseUnroll()), *wide)
    assert relative(found.meta, exact.meta) < 1e-10
    np.testing.assert_allclose(found.value, exact.value, rtol=1e-12)
    assert (found.meta[:, 3] == 0).all()  # the rejected example
    assert (jnp.abs(found.meta[:, :3]) > 0).all()


def learner_of(components, **changes):
    """Returns the gold learner of the run's settings with changes."""
    config = dataclasses.replace(components.config, **changes)
    loop, scorer = models(config, execution(config, components.model.architecture))
    return mass_learner(config, loop, scorer, "gold")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"adjoint": "mixed", "adjoint_remat": "recursive", "remat": "block", "example_chunk": 3},
            marks=pytest.mark.slow,  # one more program; tests/metagrad compares this adjoint on a smaller loss
        ),
        pytest.param(
            {"adjoint": "weighted", "adjoint_store": "disk", "adjoint_remat": "step", "tasks_at_a_time": 1},
            marks=pytest.mark.slow,  # likewise
        ),
        {"adjoint": "truncated:2", "remat": "dots", "loss_chunk": 3, "example_chunk": 2, "product_chunk": 1}
        | {"tasks_at_a_time": 1, "attention": "blockwise", "attention_block": 4},
    ],
    ids=lambda changes: changes["adjoint"],
)
def test_adjoints_and_memory_policies_give_same_meta_gradient(x64, components, learner, wide, changes):
    """With `test_score_gradients_equal_reverse_over_reverse`, for every exact adjoint and every policy."""
    found, exact = gradients(learner_of(components, **changes), *wide), gradients(learner("gold"), *wide)
    assert relative(found.meta, exact.meta) < 1e-11
    np.testing.assert_allclose(found.value, exact.value, rtol=1e-12)


def test_score_gradients_equal_central_differences(x64, learner, wide):
    weights, scores, batch = wide
    exact = gradients(learner("gold"), weights, scores, batch).meta
    step = 1e-4
    for m in range(3):
        shift = jnp.zeros_like(scores).at[:, m].set(step)
        above, below = (outer_losses(learner("gold"), weights, scores + s, batch) for s in (shift, -shift))
        np.testing.assert_allclose(exact[:, m], (above - below) / (2 * step), rtol=1e-6, atol=1e-9)


def test_score_gradients_are_independent_of_batch(x64, learner, wide):
    weights, scores, batch = wide
    together = gradients(learner("gold"), weights, scores, batch).meta
    for n in range(scores.shape[0]):
        # the same shapes, with the other problems replaced by copies of this one
        alone = jax.tree.map(lambda leaf, n=n: np.stack([np.asarray(leaf)[n]] * leaf.shape[0]), (scores, batch))
        np.testing.assert_allclose(gradients(learner("gold"), weights, *alone).meta[0], together[n], rtol=1e-12)


def test_scorer_gradient_equals_whole_objective_gradient(x64, learner, wide):
    """The VJP of the scorer outside the unroll equals the gradient through the scorer and the inner loop at once."""
    weights, _, batch = wide
    gold = learner("gold")
    eta = widen(score.init(jax.random.key(1), gold.scorer))
    eta["head"]["kernel"] = jax.random.normal(jax.random.key(2), eta["head"]["kernel"].shape)

    def scores_of(eta):
        return score.scores(gold.scorer, eta, batch.scorer_texts)

    scores, pull = jax.vjp(jax.jit(scores_of), eta)
    (by_parts,) = pull(gradients(gold, weights, scores, batch).meta / scores.shape[0])
    whole = jax.jit(jax.grad(lambda eta: outer_losses(gold, weights, scores_of(eta), batch).mean()))(eta)
    assert relative(*(jax.flatten_util.ravel_pytree(tree)[0] for tree in (by_parts, whole))) < 1e-10


def test_generator_adapter_equals_merged_weights(x64, components, learner, wide):
    """Both adapters together equal the inner adapter over merged weights, up to rounding."""
    _, scores, batch = wide
    base = widen(components.model.params)
    own = lora.init(jax.random.key(3), components.rollouts.solver.config, 2, components.config.lora_targets)
    own = jax.tree.map(lambda leaf: 0.1 * jax.random.normal(jax.random.key(4), leaf.shape, leaf.dtype), own)
    over_adapter = with_loop(learner("gold"), solver=dataclasses.replace(components.rollouts.solver, generator="lora"))
    one = outer_losses(over_adapter, Weights(base, own.leaves), scores, batch)
    two = outer_losses(learner("gold"), Weights({}, lora.merge(base, own)), scores, batch)
    assert relative(one, two) < 1e-10


_step = jax.jit(meta_step.meta_step, static_argnames="learner")
_init = jax.jit(meta_step.init_state, static_argnames="learner")
_compiled = {}


def compiled_step(learner, *arguments):
    """Returns the compiled step of a learner, which also states its memory; one for equal shapes."""
    leaves, structure = jax.tree.flatten(arguments)
    key = learner, structure, *((jnp.shape(leaf), jnp.asarray(leaf).dtype) for leaf in leaves)
    if key not in _compiled:
        _compiled[key] = _step.lower(learner, *arguments).compile()
    return _compiled[key]


def run_step(components, learner, batch, step, policy=None):
    # optax's Adam raises a float to an integer power, which strict promotion rejects
    with jax.numpy_dtype_promotion("standard"):
        state = _init(jax.random.key(0), learner, components.model.params if policy is None else policy)
        state = state._replace(step=jnp.asarray(step, jnp.int32))
        arguments = state, {}, batch, jax.random.key(1)
        new, output = compiled_step(learner, *arguments)(*arguments)
    return state, new, output


def moved(before, after):
    leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in leaves)


@pytest.mark.parametrize("training", [False, True])
def test_meta_step_warmup_trains_scorer_only(components, learner, batch, training):
    gold = learner("gold")
    before, after, _ = run_step(components, gold, batch, step=gold.warmup_steps if training else 0)
    assert moved(before.scorer, after.scorer)
    assert moved(before.policy, after.policy) is training


def test_meta_step_skips_non_finite_weights(components, learner, batch):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), components.model.params)
    before, after, output = run_step(components, learner("gold"), batch, learner("gold").warmup_steps, broken)
    assert int(output.metrics["tasks_not_finite"]) == len(output.rewards_NM)
    assert int(after.policy_opt_state.notfinite_count) == 1
    assert not moved(before.scorer, after.scorer)


@pytest.mark.parametrize("outer", ["gold", "verifier"])
def test_meta_step_isolates_non_finite_problem(components, learner, batch, outer):
    bad_N = np.arange(len(batch.right_NJ)) == 0
    adapters = jax.tree.map(lambda leaf: np.where(bad_N[:, None, None, None], np.float32(np.nan), leaf), batch.adapters)
    # Samples of a non-finite model have no log-probabilities either.
    logprobs = np.array(batch.solutions.logprobs_BT)
    logprobs[0] = np.nan
    bad = batch._replace(adapters=adapters, solutions=batch.solutions._replace(logprobs_BT=logprobs))
    before, after, output = run_step(components, learner(outer), bad, learner(outer).warmup_steps)
    assert moved(before.policy, after.policy)
    assert int(output.metrics["tasks_not_finite"]) == 1
    assert (output.rewards_NM[0] == 0).all()
    assert (output.rewards_NM[1:, :3] != 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.policy, after.scorer)))


def test_solutions_of_non_finite_problems_are_masked():
    """The ratio to an external sampler is not finite either."""
    solutions = random_rollout(0, (2, 3), prompt=2, new=4, vocabulary=9)
    unknown = np.stack([np.full_like(solutions.logprobs_BT[0], np.nan), solutions.logprobs_BT[1]])
    for log_ratio_BT in (None, unknown):
        found = finite.only_finite(
            np.array([False, True]), solutions._replace(logprobs_BT=unknown, log_ratio_BT=log_ratio_BT)
        )
        for leaf, kept in ((found.text.target_BT, solutions.text.target_BT), (found.logprobs_BT, unknown)):
            np.testing.assert_array_equal(leaf, [np.zeros_like(kept[0]), kept[1]])
        np.testing.assert_array_equal(found.text.tokens_BT, solutions.text.tokens_BT)
        assert log_ratio_BT is None or not np.isnan(found.log_ratio_BT).any()


def test_meta_step_without_signal_changes_nothing(components, learner, batch):
    """Every example is rejected, and no attempt is correct."""
    blank = jax.tree.map(np.zeros_like, batch.examples)
    batch = batch._replace(examples=blank, right_NJ=np.zeros_like(batch.right_NJ))
    verifier = learner("verifier")
    before, after, output = run_step(components, verifier, batch, step=verifier.warmup_steps)
    assert int(output.metrics["tasks_without_signal"]) == len(output.rewards_NM)
    assert (output.rewards_NM == 0).all()
    assert not moved(before.scorer, after.scorer)
    assert not moved(before.policy, after.policy)
    assert int(after.step) == int(before.step) + 1


def last_block(components, learner, batch, generator):
    """Returns a learner with inner adapters in the last block only, and the batch with fresh ones."""
    solver = dataclasses.replace(components.rollouts.solver, generator=generator, inner_blocks=1)
    changed = with_loop(learner("gold"), solver=solver)
    batch = batch._replace(adapters=widen(changed.loop.init_adapters(jax.random.split(jax.random.key(0), 3))))
    assert {leaf.shape[1] for leaf in jax.tree.leaves(batch.adapters)} == {1}
    return changed, batch


def test_last_block_adapters_match_whole_model(x64, components, learner, wide):
    """Meta-gradients of the last block match loss differences of the whole model under widened adapters."""
    weights, scores_NM, batch = wide
    changed, batch = last_block(components, learner, batch, "full")
    whole = with_loop(changed, solver=_Whole(**vars(changed.solver)))
    direction = jnp.asarray(np.random.default_rng(1).standard_normal(scores_NM.shape))
    found = gradients(changed, weights, scores_NM, batch)
    step = 1e-5
    ends = [outer_losses(whole, weights, scores_NM + sign * step * direction, batch) for sign in (1, -1)]
    np.testing.assert_allclose(found.value, outer_losses(whole, weights, scores_NM, batch), rtol=1e-12)
    np.testing.assert_allclose((found.meta * direction).sum(-1), (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


def test_last_block_adapters_with_generator_adapter_equal_merged_weights(x64, components, learner, wide):
    """Meta-gradients of the last block over a generator adapter equal those over merged weights, up to rounding."""
    weights, scores_NM, batch = wide
    over_adapter, batch = last_block(components, learner, batch, "lora")
    own = lora.init(jax.random.key(2), over_adapter.solver.config, 2, components.config.lora_targets, jnp.float64)
    own = jax.tree.map(lambda leaf: leaf + 0.02, own)
    found = gradients(over_adapter, Weights(weights.policy, own.leaves), scores_NM, batch)
    merged, _ = last_block(components, learner, batch, "full")
    expected = gradients(merged, Weights({}, lora.merge(weights.policy, own)), scores_NM, batch)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-10)
    assert relative(found.meta, expected.meta) < 1e-10
    assert relative(found.meta, gradients(merged, weights, scores_NM, batch).meta) > 1e-3


@dataclasses.dataclass(frozen=True)
class _Whole(Solver):
    """Runs the whole model in every inner step."""

    def read(self, weights, text):
        return text


def test_path_rewards_sum_to_gain(x64, learner, wide):
    weights, scores_NM, batch = wide

    def gradient(scores_NM):
        with jax.disable_jit(False):
            return gradients(learner("gold"), weights, scores_NM, batch).meta

    loss = rewards.ScoreLoss(lambda s: outer_losses(learner("gold"), weights, s, batch), gradient)
    gains_N = loss.value(jnp.zeros_like(scores_NM)) - loss.value(scores_NM)
    with jax.disable_jit():  # runs the loop over the points in Python, so that the gradient is not compiled once more
        sums_N = rewards.Path(8)(loss, scores_NM, scores_NM, scores_NM > 0).sum(-1)
    np.testing.assert_allclose(sums_N, gains_N, atol=1e-6)
    assert (jnp.abs(gains_N) > 1e-4).all()


def moments(opt_state):
    """Returns Adam's first moment after one step, a tenth of the clipped gradient."""
    return opt_state.inner_state[1][0].mu


def close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()) + 1e-12)


def test_meta_step_one_task_at_a_time_trains_alike_in_memory_of_one(components, learner, batch):
    """Eighteen problems, six copies of three, have the mean gradients of three, and take the memory of one."""
    gold, mapped = learner("gold"), learner_of(components, tasks_at_a_time=1)
    copies, key = jax.tree.map(lambda leaf: np.concatenate([leaf] * 6), batch), jax.random.key(1)
    before, *_ = run_step(components, gold, batch, step=gold.warmup_steps)
    with jax.numpy_dtype_promotion("standard"):
        step, mapped_step = compiled_step(gold, before, {}, batch, key), compiled_step(mapped, before, {}, copies, key)
        state, expected = step(step(before, {}, batch, key)[0], {}, batch, key)
        found, output = mapped_step(mapped_step(before, {}, copies, key)[0], {}, copies, key)
    close(moments(found.policy_opt_state), moments(state.policy_opt_state))
    close(moments(found.scorer_opt_state), moments(state.scorer_opt_state))
    np.testing.assert_allclose(output.metrics["loss"], expected.metrics["loss"], rtol=1e-4)
    three, one = (each.memory_analysis().temp_size_in_bytes for each in (step, mapped_step))
    assert one < 1.2 * three / 3


def test_rejected_reward_does_not_train_scorer(components, learner, batch):
    """The scorer is trained on the rewards, the generator on those that replace the rewards of rejected texts."""
    gold = learner("gold")
    before, after, output = run_step(components, gold, batch, step=gold.warmup_steps)
    rewards_NM, stop_tokens = output.rewards_NM, gold.solver.config.stop_tokens

    @jax.jit
    def scorer_gradient(eta):
        _, pull = jax.vjp(lambda eta: score.scores(gold.scorer, eta, batch.scorer_texts), eta)
        (gradient,) = pull(-rewards_NM / len(rewards_NM))
        return outer_optimizer.update(gold.scorer_optimizer, gradient, eta, before.scorer_opt_state)[1]

    accepted_NM = rejected.is_accepted(batch.examples, batch.generated, stop_tokens)
    worst_NM, zero_NM = (rule(rewards_NM, accepted_NM) for rule in (rejected.WORST, rejected.RejectedReward(0.0)))
    np.testing.assert_array_equal(zero_NM, rewards_NM)
    assert output.metrics["trained_reward"] == worst_NM.mean() < rewards_NM.mean() == output.metrics["reward"]
    update = jax.jit(meta_step.policy_update, static_argnames="learner")
    with jax.numpy_dtype_promotion("standard"):
        close(moments(after.scorer_opt_state), moments(scorer_gradient(before.scorer)))
        worst, zero = (update(gold, before, {}, batch, each_NM)[1] for each_NM in (worst_NM, zero_NM))
    close(moments(after.policy_opt_state), moments(worst))
    assert moved(moments(worst), moments(zero))


def test_meta_step_with_gain_baseline_and_kl(components, learner, batch):
    gold = learner("gold")
    changed = dataclasses.replace(
        gold,
        reward=rewards.Gain(),
        rejected_reward=rejected.RejectedReward(0.0),
        scorer_baseline="group",
        objective=dataclasses.replace(gold.objective, kl_coef=0.1),
    )
    started = drift.start_logprobs(
        components.rollouts.solver, components.model.params, batch.generated.text, components.config.max_example_tokens
    )
    own = batch._replace(start_logprobs_NMT=started - 0.2)
    before, after, output = run_step(components, changed, own, step=changed.warmup_steps)
    # With equal scores, adding a constant to the gradient of a problem moves the bias of the scorer's head and no more.
    np.testing.assert_allclose(moments(after.scorer_opt_state)["head"]["bias"], 0, atol=1e-6)
    with jax.enable_x64(True):
        weights, double = Weights({}, widen(before.policy)), widen(batch)
        at_half = jnp.full(output.scores_NM.shape, 0.5, float)
        gain_N = outer_losses(gold, weights, 0 * at_half, double) - outer_losses(gold, weights, at_half, double)
        marginal_NM = -gradients(gold, weights, at_half, double).meta
    expected_NM = np.where(rejected.is_parsed(batch.examples), gain_N[:, None] + marginal_NM, 0)
    np.testing.assert_allclose(output.rewards_NM, expected_NM, atol=1e-5)
    assert output.metrics["trained_reward"] == output.metrics["reward"]  # rejected texts keep the reward 0
    shares = jnp.asarray(batch.generated.text.target_BT).any(-1).mean()
    np.testing.assert_allclose(output.metrics["kl_loss"], shares * (np.exp(-0.2) + 0.2 - 1), rtol=1e-4)
    assert moved(before.policy, after.policy)
