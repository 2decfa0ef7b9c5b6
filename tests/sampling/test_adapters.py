"""Adapters of different ranks, scales and targets are combined without changing their effects."""

import jax
import numpy as np

from mass_jax.llama import lora
from mass_jax.sampling import adapters
from mass_jax.types import Adapter
from tests.small_models import LLAMA


def test_batch_preserves_effects():
    rng = np.random.default_rng(0)

    def drawn(rank, targets, scale):
        shapes = jax.eval_shape(lambda key: lora.init(key, LLAMA, rank, targets).leaves, jax.random.key(0))
        return Adapter(jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), shapes), scale)

    given = [drawn(2, ("q_proj", "up_proj"), 0.5), None, drawn(3, ("q_proj",), 1.0)]
    found = lora.checked(adapters.batch(given), batched=True)
    for parent, name in (("self_attn", "q_proj"), ("mlp", "up_proj")):
        pair = found.leaves["layers"][parent][name]
        for n, adapter in enumerate(given):
            layers = {} if adapter is None else adapter.leaves["layers"]
            own = layers.get(parent, {}).get(name)
            wanted = 0.0 if own is None else adapter.scale * (own["a"] @ own["b"])
            np.testing.assert_allclose(np.asarray(pair["a"][n] @ pair["b"][n]), wanted, atol=1e-5)


def test_batch_keeps_adapters_and_their_absence():
    shared = lora.init(jax.random.key(0), LLAMA, 1, ("q_proj",))
    assert adapters.batch(shared) is shared
    assert adapters.batch(None) is None
    assert adapters.batch([None, None]) is None
