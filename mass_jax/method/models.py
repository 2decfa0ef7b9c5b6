"""The language model under frozen weights, the generator's policy and a problem's inner adapter.

Shape suffixes: B rows, T tokens.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, LlamaConfig, lora, losses, suffix
from mass_jax.method.text import Text
from mass_jax.types import Adapter, Params


class Weights(NamedTuple):
    """The generator's weights, split into frozen and trained ones.

    Attributes:
        base: frozen parameters; empty if the generator is trained in full.
        policy: trained parameters: all of them, or the leaves of the generator's own adapter over `base`, of scale 1.
    """

    base: Params
    policy: Params


class Read(NamedTuple):
    """Rows with the output of the blocks without inner adapters, which is computed once for all inner steps.

    Attributes:
        text: the rows.
        hidden_BTD: input of the first block with inner adapters.
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
    """

    model: Llama
    generator: Literal["full", "lora"] = "full"
    inner_blocks: int = 0

    @property
    def config(self) -> LlamaConfig:
        """The model's architecture."""
        return self.model.config

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
        first, _ = self._parts(weights)
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
        if isinstance(text, Read):
            _, last = self._parts(weights)
            variables = lora.variables(last.params, self._join(last.adapter, inner))
            rows = text.text
            nll_BT = losses.token_nll(last.model, variables, rows.tokens_BT, rows.mask_BT, text.hidden_BTD)
        else:
            variables = lora.variables(self.params(weights), self.adapter(weights, inner))
            nll_BT = losses.token_nll(self.model, variables, text.tokens_BT, text.mask_BT)
        return jnp.pad(-nll_BT, ((0, 0), (1, 0)))

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
        logprobs_BT = self.logprobs(weights, text, inner)
        rows = text.text if isinstance(text, Read) else text
        target_BT = rows.target_BT.astype(logprobs_BT.dtype)
        return -(logprobs_BT * target_BT).sum(-1) / jnp.maximum(target_BT.sum(-1), 1)

    def _own_adapter(self, weights: Weights) -> Adapter | None:
        """Returns the generator's own adapter, if it has one."""
        return Adapter(weights.policy) if self.generator == "lora" else None

    def _join(self, own: Adapter | None, inner: Adapter | None) -> Adapter | None:
        """Concatenates the inner adapter to the generator's."""
        if inner is None:
            return own
        return lora.folded(inner) if own is None else lora.concatenate(own, inner)

    def _parts(self, weights: Weights) -> tuple[suffix.Part, suffix.Part]:
        """Splits the model before its first block with inner adapters."""
        return suffix.split(self.model, self.params(weights), self.inner_blocks, self._own_adapter(weights))
