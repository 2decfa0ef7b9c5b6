"""Products with adapters in bfloat16: direction of the meta-gradient and of the generator's gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mass_jax.llama import lora
from mass_jax.method import meta_step
from mass_jax.method.models import Weights
from mass_jax.training.architecture import execution, models
from mass_jax.training.learners import mass_learner


def cosine(a, b):
    a, b = (jax.flatten_util.ravel_pytree(tree)[0].astype(jnp.float32) for tree in (a, b))
    return float(jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b))


@pytest.fixture(scope="module")
def gradients_of(components):
    """Returns a function from settings to the gradients of a bfloat16 model with respect to scores and generator."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), components.model.params)

    def gradients(batch, **changes):
        config = dataclasses.replace(
            components.config, generator="lora", inner_steps=1, base_dtype="bfloat16", **changes
        )
        loop, scorer = models(config, execution(config, components.model.architecture))
        learner = mass_learner(config, loop, scorer, "gold")
        own = lora.init(jax.random.key(3), loop.solver.config, 2, config.lora_targets)
        own = jax.tree.map(lambda leaf: 0.1 * jax.random.normal(jax.random.key(4), leaf.shape), own)

        @jax.jit
        def both(policy, scores_NM):
            def loss(policy):
                rewards_NM = jnp.linspace(-1.0, 1.0, scores_NM.size).reshape(scores_NM.shape)
                rollouts = batch.generated, rewards_NM, batch.solutions, batch.right_NJ
                return learner.objective(Weights(params, policy), *rollouts, None)[0]

            meta = meta_step.score_gradients(learner, Weights(params, policy), scores_NM, batch).meta
            return meta, jax.grad(loss)(policy)

        return both(own.leaves, jnp.full(batch.generated.text.tokens_BT.shape[:2], 0.5))

    return gradients


def test_half_adapters_keep_directions(gradients_of, batch):
    """Float32 adapters have float32 gradients whose direction changes little."""
    exact = gradients_of(batch)
    half = gradients_of(batch, adapter_product_dtype="bfloat16")
    for one, other in zip(exact, half, strict=True):
        assert {leaf.dtype for leaf in jax.tree.leaves(other)} == {jnp.dtype("float32")}
        assert cosine(one, other) > 0.999
