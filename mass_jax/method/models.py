"""The language model under frozen weights, the generator's policy and a problem's inner adapter.

Shape suffixes: B rows, T tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, LlamaConfig, lora, losses, shared_prompt, suffix
from mass_jax.method.text import Text
from mass_jax.types import Adapter, Params, PyTree


class Weights(NamedTuple):
    """The generator's weights, split into frozen and trained ones.

    Attributes:
        base: frozen parameters; empty if the generator is trained in full.
        policy: trained parameters: all of them, or the leaves of the generator's own adapter over `base`, of scale 1.
        inner: learned hyperparameters of the inner optimizer, as `LearnedInner` parameterizes them; None if there are
            none.
    """

    base: Params
    policy: Params
    inner: PyTree = None


class Read(NamedTuple):
    """Rows with the output of the first blocks, which is computed once for all inner steps.

    Attributes:
        text: the rows.
        hidden_BTD: input of the remaining blocks.
    """

    text: Text
    hidden_BTD: jax.Array


@dataclasses.dataclass(frozen=True)
class Solver:
    """The language model pi_theta, which writes examples, adapts to them and answers.

    Attributes:
        model: the Llama.
        generator: "full" if the policy is all parameters, "lora" if it is an adapter over frozen parameters.
        inner_blocks: number of last blocks that carry inner adapters; 0 stands for all.
        generator_blocks: number of last blocks that carry the generator's adapter; 0 stands for all.
        max_target_tokens: largest number of target tokens in a row of `completion_nll`, which computes no other logits;
            0 if unknown.
    """

    model: Llama
    generator: Literal["full", "lora"] = "full"
    inner_blocks: int = 0
    generator_blocks: int = 0
    max_target_tokens: int = 0

    @property
    def config(self) -> LlamaConfig:
        """The model's architecture."""
        return self.model.config

    def init_policy(self, key: jax.Array, rank: int, targets: Sequence[str]) -> PyTree:
        """Returns the leaves of a fresh adapter of the generator, which leaves the model unchanged."""
        blocks = self.generator_blocks or self.config.num_hidden_layers
        return lora.init(key, dataclasses.replace(self.config, num_hidden_layers=blocks), rank, targets).leaves

    def params(self, weights: Weights) -> Params:
        """Returns the parameters without any adapter."""
        return weights.policy if self.generator == "full" else weights.base

    def adapter(self, weights: Weights, inner: Adapter | None = None) -> Adapter | None:
        """Returns the adapter on top of `params`: the generator's, the inner one, or both concatenated; of scale 1."""
        if inner is not None and self.inner_blocks:
            inner = suffix.widen(inner, self.config.num_hidden_layers)
        return self._join(self._own_adapter(weights), inner)

    def read(self, weights: Weights, text: Text) -> Text | Read:
        """Runs the blocks without inner adapters; returns the text unchanged if every block carries them."""
        if not self.inner_blocks:
            return text
        first, _ = self._parts(weights, self.inner_blocks)
        return Read(text, suffix.prefix(first, text.tokens_BT, text.mask_BT))

    def logprobs(self, weights: Weights, text: Text | Read, inner: Adapter | None = None) -> jax.Array:
        """Returns log pi(token | previous tokens) at the position of each token; 0 at the first.

        Args:
            weights: the generator's weights.
            text: rows, or the result of `read`.
            inner: inner adapter of the problem, shared by all rows.

        Returns:
            logprobs_BT, float32, in nats.
        """
        model, variables, hidden_BTD = self._suffix(weights, text, inner)
        rows = text.text if isinstance(text, Read) else text
        nll_BT = losses.token_nll(model, variables, rows.tokens_BT, rows.mask_BT, hidden_BTD)
        return jnp.pad(-nll_BT, ((0, 0), (1, 0)))

    def continuation_logprobs(
        self, weights: Weights, text: Text, new_tokens: int, inner: Adapter | None = None
    ) -> jax.Array:
        """Returns the same as `logprobs` for completions of one prompt, which is computed once.

        Args:
            weights: the generator's weights.
            text: rows of `join_rollout`, which share the prompt.
            new_tokens: S, the slots for generated tokens in each row.
            inner: inner adapter of the problem, shared by all rows.

        Returns:
            logprobs_MT, float32, in nats; 0 where `text` has no target.
        """
        rows = continued(text, new_tokens)
        if inner is None and self.generator_blocks:
            first, last = self._parts(weights, self.generator_blocks)
            variables = lora.variables(last.params, last.adapter)
            nll_MS = shared_prompt.continuation_nll(last.model, variables, rows, shared_prompt.prefix(first, rows))
        else:
            variables = lora.variables(self.params(weights), self.adapter(weights, inner))
            nll_MS = shared_prompt.continuation_nll(self.model, variables, rows)
        slots_T = jnp.arange(text.tokens_BT.shape[-1]) - rows.length
        nll_MT = jnp.take(nll_MS, jnp.clip(slots_T, 0, new_tokens - 1), axis=1)
        return jnp.where(text.target_BT > 0, -nll_MT, 0)

    def completion_nll(self, weights: Weights, text: Text | Read, inner: Adapter | None = None) -> jax.Array:
        r"""Supervised loss of each row, averaged over the tokens of its completion.

        .. math:: \ell_i = -\frac{1}{|a_i|} \sum_t \log \pi(a_{i,t} \mid p_i, a_{i,<t})

        Args:
            weights: the generator's weights.
            text: rows, or the result of `read`.
            inner: inner adapter of the problem, shared by all rows.

        Returns:
            losses_B in nats per token; exactly 0, with zero gradient, for a masked row.

        Source: the paper, section 2.1, the supervised loss l(p_i, a_i; theta).
        """
        rows = text.text if isinstance(text, Read) else text
        if self.max_target_tokens:
            model, variables, hidden_BTD = self._suffix(weights, text, inner)
            nll_BT, target_BT = losses.last_tokens_nll(
                model, variables, *rows, count=self.max_target_tokens, prefix_BTD=hidden_BTD
            )
        else:
            nll_BT, target_BT = -self.logprobs(weights, text, inner), rows.target_BT
        target_BT = target_BT.astype(nll_BT.dtype)
        return (nll_BT * target_BT).sum(-1) / jnp.maximum(target_BT.sum(-1), 1)

    def _suffix(
        self, weights: Weights, text: Text | Read, inner: Adapter | None
    ) -> tuple[Llama, dict[str, Any], jax.Array | None]:
        """Returns the blocks that are left to run, their variables, and their input if it is not the embeddings."""
        if isinstance(text, Read):
            _, last = self._parts(weights, self.inner_blocks)
            return last.model, lora.variables(last.params, self._join(last.adapter, inner)), text.hidden_BTD
        if inner is None and self.generator_blocks:  # earlier blocks have no trained parameters
            first, last = self._parts(weights, self.generator_blocks)
            hidden_BTD = suffix.prefix(first, text.tokens_BT, text.mask_BT)
            return last.model, lora.variables(last.params, last.adapter), hidden_BTD
        return self.model, lora.variables(self.params(weights), self.adapter(weights, inner)), None

    def _own_adapter(self, weights: Weights) -> Adapter | None:
        """Returns the generator's own adapter of all blocks, if it has one."""
        if self.generator != "lora":
            return None
        own = Adapter(weights.policy)
        return suffix.widen(own, self.config.num_hidden_layers) if self.generator_blocks else own

    def _join(self, own: Adapter | None, inner: Adapter | None) -> Adapter | None:
        """Concatenates the inner adapter to the generator's."""
        if inner is None:
            return own
        return lora.folded(inner) if own is None else lora.concatenate(own, inner)

    def _parts(self, weights: Weights, last: int) -> tuple[suffix.Part, suffix.Part]:
        """Splits the model before its last blocks."""
        first, second = suffix.split(self.model, self.params(weights), last, self._own_adapter(weights))
        if 0 < self.generator_blocks <= last:
            first = first._replace(adapter=None)
        return first, second


def continued(text: Text, new_tokens: int) -> shared_prompt.Continued:
    """Splits rows of one prompt with its completions into the prompt and the completions.

    Args:
        text: rows [M, T] of `join_rollout`.
        new_tokens: S; the first T - S slots hold the prompt.
    """
    tokens_MT = jnp.asarray(text.tokens_BT)
    target_MT = jnp.asarray(text.target_BT) > 0
    width = tokens_MT.shape[-1]
    # A row without targets says nothing of the prompt's length.
    starts_M = jnp.where(target_MT.any(-1), jnp.argmax(target_MT, axis=-1), width - new_tokens)
    length = jnp.maximum(starts_M.min(), 1)

    def completions(rows_MT: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(rows_MT, length, new_tokens, axis=1)

    return shared_prompt.Continued(
        tokens_MT[0, : width - new_tokens], length, completions(tokens_MT), completions(target_MT)
    )
