"""Samplers of rollouts: the native one, and external implementations of `mass_jax.sampling.Sampler`.

Shape suffixes: N problems, M samples per problem, T tokens.
"""

import dataclasses
import functools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np

from mass_jax import own_code, runtime, sampling
from mass_jax.errors import UserError
from mass_jax.llama import Llama
from mass_jax.method import generate
from mass_jax.method.models import Solver, Weights
from mass_jax.runtime import distributed
from mass_jax.sampling.conversion import to_samples
from mass_jax.sampling.loop import Request
from mass_jax.sampling.remote import vllm
from mass_jax.sampling.sampler import check_protocol
from mass_jax.types import Adapter, Params, PyTree, Tokenizer

NATIVE, VLLM = "native", "vllm"

MakeSampler: TypeAlias = Callable[[Llama, Tokenizer], sampling.Sampler]
"""Builds a sampler from the model and its tokenizer, like the class `mass_jax.sampling.Engine`."""


class Draw(NamedTuple):
    """Completions to sample.

    Attributes:
        prompts: right-padded tokens [N, T] and lengths [N] of this process's problems.
        keys_N: one random key per problem, for the problems of all processes.
        num_samples: M.
        max_new_tokens: largest number of generated tokens.
        temperature: 0 is greedy.
    """

    prompts: tuple[np.ndarray, np.ndarray]
    keys_N: jax.Array
    num_samples: int
    max_new_tokens: int
    temperature: float


class RolloutSampler(Protocol):
    """Protocol of what `Rollouts` samples with.

    Attributes:
        is_native: whether the samples and their log-probabilities are the model's own.
    """

    @property
    def is_native(self) -> bool:
        """Whether the samples and their log-probabilities are the model's own."""

    def __call__(
        self, solver: Solver, weights: Weights, inner: Adapter | None, feed: runtime.Feed, draw: Draw
    ) -> sampling.Samples:
        """Samples completions of this process's problems.

        Args:
            solver: the language model.
            weights: the generator's weights.
            inner: inner adapters, one per problem; None samples from the unadapted model.
            feed: moves the problems of this process to the mesh and back.
            draw: what to sample.

        Returns:
            The samples of this process's problems, [N, M, T], as NumPy arrays.
        """


@dataclasses.dataclass(frozen=True)
class Native:
    """Samples from the model in one compiled program, split over the mesh.

    A sample depends only on its own prompt, adapter and key.
    """

    is_native: bool = dataclasses.field(default=True, init=False)

    def __call__(
        self, solver: Solver, weights: Weights, inner: Adapter | None, feed: runtime.Feed, draw: Draw
    ) -> sampling.Samples:
        """Samples completions; see `RolloutSampler`."""
        size = len(draw.keys_N)
        drawn = generate.sample(
            solver,
            weights,
            inner,
            *feed.put(draw.prompts, size),
            feed.spread(draw.keys_N),
            num_samples=draw.num_samples,
            max_new_tokens=draw.max_new_tokens,
            temperature=draw.temperature,
        )
        return feed.get(drawn, size)


class External:
    """Samples with an implementation of `mass_jax.sampling.Sampler`, and converts its continuations.

    The sampler gets the parameters without adapters, and the sum of the generator's adapter and of the inner ones:
    None, a shared adapter, or a batched one. Texts are decoded from its tokens by the model's tokenizer.

    Attributes:
        sampler: the implementation.
        name: its name, for error messages.
        version: number of the parameters that the sampler has seen last; see `sampling.HoldsWeights`.
    """

    is_native = False

    def __init__(self, sampler: sampling.Sampler, name: str) -> None:
        """Wraps a sampler.

        Raises:
            UserError: it does not implement the protocol, or the run has several processes.
        """
        check_protocol(sampler, f"--sampler={name}")
        if distributed.num_processes() > 1:
            raise UserError(
                f"--sampler={name} samples in one process, but this run has {distributed.num_processes()}; use "
                f"--sampler={NATIVE}, or one process"
            )
        self.sampler, self.name, self.version = sampler, name, 0
        self._seen: list[weakref.ref[Any]] = []

    def __call__(
        self, solver: Solver, weights: Weights, inner: Adapter | None, feed: runtime.Feed, draw: Draw
    ) -> sampling.Samples:
        """Samples completions; see `RolloutSampler`."""
        params = solver.params(weights)
        self._update(params)
        pad, stops = solver.config.pad_token_id, tuple(solver.config.stop_tokens)
        settings = sampling.Settings(temperature=draw.temperature)
        request = Request(draw.num_samples, draw.max_new_tokens, settings, stops, 0 if pad is None else pad)
        prompts = [row[:length].tolist() for row, length in zip(*draw.prompts, strict=True)]
        rows = self.sampler(
            params,
            prompts,
            draw.keys_N,
            num_samples=request.num_samples,
            max_new_tokens=request.max_new_tokens,
            settings=settings,
            stop_tokens=stops,
            stop_strings=(),
            adapters=_adapter(solver, weights, inner),
        )
        return to_samples(rows, len(prompts), request, solver.config.vocab_size, self.name)

    def _update(self, params: Params) -> None:
        """Counts the version up and hands over the parameters if any of them is another array than before."""
        leaves = jax.tree.leaves(params)
        if len(leaves) == len(self._seen) and all(ref() is leaf for ref, leaf in zip(self._seen, leaves, strict=True)):
            return
        self.version += 1
        if isinstance(self.sampler, sampling.HoldsWeights):
            self.sampler.update(params, self.version)
        self._seen = [weakref.ref(leaf) for leaf in leaves]


@functools.partial(jax.jit, static_argnames="solver")
def _adapter(solver: Solver, weights: Weights, inner: PyTree) -> Adapter | None:
    """Returns the sum of the generator's adapter and of the inner ones."""
    return solver.adapter(weights, inner)


def make(
    name: str | MakeSampler, model: Llama, tokenizer: Tokenizer, server: vllm.Server | None = None
) -> RolloutSampler:
    """Builds the sampler of a run.

    Args:
        name: "native", "vllm", "module:class", "file.py:class", or the class itself; see `MakeSampler`.
        model: the model.
        tokenizer: its tokenizer; `tokenizer.name_or_path` is the directory of the model's files.
        server: settings of the server for "vllm"; None uses the defaults.

    Raises:
        UserError: the server's address is invalid, the class cannot be found or called, or its objects do not implement
            `sampling.Sampler`.
    """
    if name == NATIVE:
        return Native()
    if name == VLLM:
        return External(vllm.Vllm(model, tokenizer, server), VLLM)
    if isinstance(name, str):
        found, label = own_code.find(name, "--sampler"), name
    else:
        found, label = name, getattr(name, "__name__", type(name).__name__)
    fault = own_code.call_fault(found, model, tokenizer)
    if fault:
        raise UserError(f"--sampler={label}: {fault}; name a class or function of (model, tokenizer)")
    return External(found(model, tokenizer), label)
