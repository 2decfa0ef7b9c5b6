"""Start-up probe of a server: its base weights, its kind of log-probabilities, and whether it applies adapters.

Shape suffixes: P prompt tokens, T all tokens.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.errors import UserError
from mass_jax.llama import Llama, lora
from mass_jax.llama import tokenizer as tokenizers
from mass_jax.llama.precision import wide
from mass_jax.sampling.remote.adapters import RANKS, Loader
from mass_jax.sampling.remote.client import Client
from mass_jax.sampling.remote.completions import Asked, complete
from mass_jax.types import Adapter, Params, PyTree, Tokenizer

TEXT = "Natalia sold 48 clips in April, and half as many in May. In all, she sold 48 + 24 = 72 clips."
_PROMPT, _NEW, _TEMPERATURE = 32, 16, 0.5
_EFFECT = 5  # tolerances by which the probe's adapter changes log-probabilities, at least
_DOUBLINGS = 16


class Agreement(NamedTuple):
    """Mean absolute differences of log-probabilities between a server and the model, in nats per token.

    Attributes:
        base: of a fixed text.
        sampled: of sampled tokens, at temperature 0.5.
        adapted: of the fixed text under an adapter.
        effect: mean absolute change of the fixed text's log-probabilities by the adapter.
    """

    base: float
    sampled: float
    adapted: float
    effect: float


def probe(
    client: Client, loader: Loader, name: str, model: Llama, params: Params, tokenizer: Tokenizer, tolerance: float
) -> Agreement:
    """Compares a server with the model.

    The server scores a fixed text and continues it, then scores it under a random adapter of all projections, which is
    scaled to change the model's log-probabilities clearly.

    Args:
        client: client of the server.
        loader: loads adapters into the server.
        name: name of the server's base model.
        model: the model.
        params: its parameters.
        tokenizer: its tokenizer.
        tolerance: largest mean absolute difference, in nats per token.

    Returns:
        The differences, all within the tolerance.

    Raises:
        UserError: the base weights differ, log-probabilities are not those of the tempered policy, or the adapter is
            ignored or applied otherwise.
    """
    prompt = tokenizers.encode(tokenizer, TEXT)[:_PROMPT]
    rows, scores = complete(client, Asked(name, prompt, 1, _NEW, _TEMPERATURE, seed=0, scores_prompt=True))
    if rows[0].tokens_T.min() < 0 or rows[0].tokens_T.max() >= model.config.vocab_size:
        raise UserError(f"the server has other token ids than the model; serve the weights of --model at {client.url}")
    tokens_T, last = np.concatenate([np.array(prompt, np.int32), rows[0].tokens_T]), len(prompt) - 1
    score = functools.partial(_logprobs, model, params, tokens_1T=tokens_T[None])
    adapter = lora.init(jax.random.key(0), model.config, RANKS[0])
    own = np.asarray(score(adapter.leaves, np.float32(1)))
    base = _difference(scores, own[:last])
    if base > tolerance:
        raise UserError(
            f"the server's log-probabilities of a fixed text differ from the model's by {base:.3g} nats per token, "
            f"more than --sampler_tolerance={tolerance:g}; serve the weights of --model at {client.url}"
        )
    tempered = np.asarray(score(adapter.leaves, np.float32(_TEMPERATURE)))
    sampled = _difference(rows[0].logprobs_T, tempered[last:])
    if sampled > tolerance:
        raw = _difference(rows[0].logprobs_T, own[last:]) <= tolerance
        fix = "start it with --logprobs-mode=processed_logprobs" if raw else "use a current vLLM"
        raise UserError(
            f"the server's log-probabilities at temperature {_TEMPERATURE} differ from the model's by {sampled:.3g} "
            f"nats per token, more than --sampler_tolerance={tolerance:g}; {fix}"
        )
    adapter, expected = _visible(adapter, score, own[:last], _EFFECT * tolerance)
    with loader.loaded([adapter]) as names:
        _, found = complete(client, Asked(names[0], prompt, 1, 1, 0.0, seed=0, scores_prompt=True))
    result = Agreement(base, sampled, _difference(found, expected), _difference(expected, own[:last]))
    if result.adapted > tolerance:
        ignored = _difference(found, scores) <= tolerance
        what = "ignores adapters" if ignored else "applies adapters in another way"
        raise UserError(
            f"the server {what}: log-probabilities under a test adapter differ from the model's by "
            f"{result.adapted:.3g} nats per token, more than --sampler_tolerance={tolerance:g}; "
            f"use a vLLM that adapts all projections of this model"
        )
    return result


def _visible(
    adapter: Adapter, score: functools.partial, base_P: np.ndarray, effect: float
) -> tuple[Adapter, np.ndarray]:
    """Returns an adapter with random B that changes log-probabilities by at least `effect`, and those under it."""
    rng = np.random.default_rng(0)

    def random(path: tuple, leaf: jax.Array) -> np.ndarray:
        is_b = path[-1].key == "b"
        return rng.standard_normal(leaf.shape, np.float32) / np.sqrt(leaf.shape[-2]) if is_b else np.asarray(leaf)

    drawn = jax.tree_util.tree_map_with_path(random, adapter.leaves)
    for k in range(_DOUBLINGS):
        candidate = lora.scaled(Adapter(drawn), 2.0 ** (k - 8))
        found = np.asarray(score(candidate.leaves, np.float32(1)))[: len(base_P)]
        if _difference(found, base_P) >= effect:
            return candidate, found
    raise UserError(f"no test adapter changes the model by {effect:g} nats per token; lower --sampler_tolerance")


def _difference(one: np.ndarray, two: np.ndarray) -> float:
    """Returns the mean absolute difference; infinite if a value is not finite."""
    found = float(np.mean(np.abs(np.asarray(one, np.float64) - np.asarray(two, np.float64))))
    return found if np.isfinite(found) else float("inf")


@functools.partial(jax.jit, static_argnums=0)
def _logprobs(model: Llama, params: Params, leaves: PyTree, temperature: jax.Array, tokens_1T: jax.Array) -> jax.Array:
    """Returns log-probabilities [T - 1] of the tokens after the first, under an adapter of scale 1."""
    logits_1TV: Any = model.apply({"params": params, "lora": leaves}, tokens_1T)
    logits_1TV = logits_1TV.astype(wide(logits_1TV.dtype))
    logprobs_TV = jax.nn.log_softmax(logits_1TV[0, :-1] / temperature.astype(logits_1TV.dtype))
    return jnp.take_along_axis(logprobs_TV, tokens_1T[0, 1:, None], axis=1)[:, 0]
