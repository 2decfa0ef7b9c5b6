"""Sampler that draws completions from a vLLM server, with adapters that travel as PEFT files.

Shape suffixes: N prompts, M samples per prompt.
"""

import concurrent.futures
import dataclasses
import http.client
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from mass_jax.errors import UserError
from mass_jax.llama import Llama, lora
from mass_jax.sampling.choose import Settings
from mass_jax.sampling.remote import completions
from mass_jax.sampling.remote.adapters import Loader
from mass_jax.sampling.remote.client import LOG, Client, Refused
from mass_jax.sampling.remote.probe import probe
from mass_jax.sampling.sampler import Continuation
from mass_jax.types import Adapter, Params, PyTree, Tokenizer

_MODELS = 1 << 22  # bytes of the list of models
_CONNECTIONS = 64  # requests at once


@dataclasses.dataclass(frozen=True)
class Server:
    """Settings of a server.

    Attributes:
        url: address of the API.
        timeout: largest number of seconds of a request.
        tolerance: largest difference of log-probabilities in the start-up probe, in nats per token.
    """

    url: str = "http://127.0.0.1:8000/v1"
    timeout: float = 600.0
    tolerance: float = 0.1


class Vllm:
    """`Sampler` that draws from a vLLM server, which holds the base weights itself.

    Each prompt is one request with integer seed bits(key), so that a sample depends only on its own prompt, adapter
    and key, up to the server's rounding. Before the first sample, `probe` compares the server with the model.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        server: settings of the server.

    Raises:
        UserError: the address is invalid; calls also if the server fails, or the probe finds a difference.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer, server: Server | None = None) -> None:
        """Builds the sampler; the server is first contacted when parameters arrive."""
        self.model, self.tokenizer, self.server = model, tokenizer, server or Server()
        self._client = Client(self.server.url, self.server.timeout)
        self._loader = Loader(self._client)
        self._name, self._seen = "", ()

    def update(self, params: Params, version: int) -> None:
        """Compares the server with the model's parameters, which must not change; see `HoldsWeights`.

        Raises:
            UserError: the server is not ready, it differs from the model, or the parameters changed.
        """
        found = tuple(np.asarray(_fingerprint(params)).tolist())
        if not self._seen:
            self._name = self._base_name()
            tolerance = self.server.tolerance
            result = probe(self._client, self._loader, self._name, self.model, params, self.tokenizer, tolerance)
            logging.info(
                "sampling from %s at %s; it differs from the model by %.2g nats per token, by %.2g under an adapter "
                "whose effect is %.2g (--sampler_tolerance=%g)",
                self._name,
                self.server.url,
                max(result.base, result.sampled),
                result.adapted,
                result.effect,
                tolerance,
            )
            self._seen = found
        if found != self._seen:
            raise UserError(
                f"--sampler=vllm: version {version} of the parameters differs from the weights that the server holds; "
                f"use --generator=lora, whose adapter is sent to it"
            )

    def __call__(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        keys_N: jax.Array,
        *,
        num_samples: int,
        max_new_tokens: int,
        settings: Settings = Settings(),  # noqa: B008 (frozen)
        stop_tokens: tuple[int, ...] = (),
        stop_strings: tuple[str, ...] = (),
        adapters: Adapter | None = None,
    ) -> list[list[Continuation]]:
        """Draws `num_samples` continuations of each prompt; see `Sampler`.

        Raises:
            UserError: the server fails, or stop strings or truncated sampling are requested.
        """
        if stop_strings or settings != Settings(temperature=settings.temperature):
            raise UserError(
                f"--sampler=vllm supports no stop strings and no truncation, such as {settings}; use native"
            )
        if not self._seen:
            self.update(params, 1)
        given = [] if adapters is None else lora.split(_on_host(adapters)) if adapters.batched else [adapters]
        count = num_samples if settings.temperature else 1  # vLLM refuses several greedy samples
        with self._loader.loaded(given) as names:
            names = names or [self._name]
            asked = [
                completions.Asked(
                    names[n if len(names) > 1 else 0],
                    prompt,
                    count,
                    max_new_tokens,
                    settings.temperature,
                    seed,
                    stop_tokens,
                )
                for n, (prompt, seed) in enumerate(zip(prompts, seeds(keys_N), strict=True))
            ]
            rows = self._complete(asked)
        return [[self._continuation(row[m % count], stop_tokens) for m in range(num_samples)] for row in rows]

    def _complete(self, asked: Sequence[completions.Asked]) -> list[list[completions.Completion]]:
        """Sends all requests at once, and cancels those that wait if one fails."""
        with concurrent.futures.ThreadPoolExecutor(min(len(asked), _CONNECTIONS)) as pool:
            futures = [pool.submit(completions.complete, self._client, one) for one in asked]
            try:
                return [future.result()[0] for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise

    def _continuation(self, one: completions.Completion, stop_tokens: tuple[int, ...]) -> Continuation:
        text = self.tokenizer.decode(one.tokens_T.tolist(), skip_special_tokens=True)
        return Continuation(*one, text, "stop" if one.tokens_T[-1] in stop_tokens else "length")

    def _base_name(self) -> str:
        """Returns the name of the server's base model."""
        try:
            answer = self._client.get("models", _MODELS)
        except Refused as error:
            fix = LOG
            if error.status == http.client.NOT_FOUND:
                versioned = self.server.url.rstrip("/").endswith("/v1")
                fix = "give the address of a vLLM server's API" if versioned else "end the address with /v1"
            raise error.with_fix(fix) from None
        cards = answer.get("data") if isinstance(answer, dict) else None
        cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        names = [card.get("id") for card in cards if not card.get("parent")]
        if len(names) != 1 or not isinstance(names[0], str):
            raise UserError(
                f"--sampler_url={self.server.url} serves {len(names)} base models; start a server for --model alone"
            )
        return names[0]


def seeds(keys_N: jax.Array) -> list[int]:
    """Returns an integer random seed for each key.

    >>> seeds(jax.random.split(jax.random.key(0), 2))[0] == seeds(jax.random.split(jax.random.key(0), 3))[0]
    True
    """
    return [int(bits) for bits in np.asarray(_bits(keys_N))]


_bits = jax.jit(jax.vmap(jax.random.bits))


@jax.jit
def _fingerprint(params: Params) -> jax.Array:
    """Returns sums over each parameter that change with its values."""
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(params)]
    return jnp.stack([jnp.sum(part) for leaf in leaves for part in (leaf, jnp.square(leaf))])


def _on_host(adapter: Adapter) -> Adapter:
    """Returns a batched adapter with NumPy leaves, which are split without a program."""
    leaves: PyTree = jax.device_get(lora.checked(adapter, True).leaves)
    return adapter.many(leaves)
