"""Which weights act together: frozen base, generator's policy, and a task's inner adapter.

Letters: B rows, T tokens.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, LlamaConfig, lora, losses, suffix
from mass_jax.method.text import Text


class Weights(NamedTuple):
    """The generator's weights: what is frozen and what meta-training changes.

    Args:
        base: frozen parameters; empty if the generator is trained in full.
        policy: trained: all parameters, or the generator's own adapter over `base`.
    """

    base: Any
    policy: Any


class Read(NamedTuple):
    """A text of which the blocks without inner adapters have been run.

    Args:
        text: rows.
        hidden_BTD: what the last blocks read of it.
    """

    text: Text
    hidden_BTD: jax.Array


@dataclasses.dataclass(frozen=True)
class Solver:
    """The language model pi_theta, which writes examples, adapts to them and answers.

    Args:
        model: the Llama.
        generator: "full" if the policy is all parameters, "lora" if it is an adapter over frozen ones.
        inner_scale: factor of the inner adapter's effect, alpha / rank.
        inner_blocks: last blocks that carry inner adapters; 0 is all of them.
    """

    model: Llama
    generator: Literal["full", "lora"] = "full"
    inner_scale: float = 1.0
    inner_blocks: int = 0

    @property
    def config(self) -> LlamaConfig:
        return self.model.config

    def params(self, weights: Weights) -> Any:
        """The parameters under every adapter."""
        return weights.policy if self.generator == "full" else weights.base

    def adapter(self, weights: Weights, inner: Any = None) -> Any:
        """All that acts on top of `params`: the generator's adapter, the task's, or both as one of summed rank."""
        if inner is not None and self.inner_blocks:
            inner = suffix.widen(inner, self.config.num_hidden_layers)
        return self._join(self._own_adapter(weights), inner)

    def read(self, weights: Weights, text: Text) -> Text | Read:
        """A text as adaptation should see it: the blocks that it leaves alone run here, once for all steps."""
        if not self.inner_blocks:
            return text
        first, _ = self._parts(weights)
        return Read(text, suffix.prefix(first, text.tokens_BT, text.mask_BT))

    def logprobs(self, weights: Weights, text: Text | Read, inner: Any = None) -> jax.Array:
        """log pi(token | tokens before it), at each token's own position; 0 at the first.

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

    def completion_nll(self, weights: Weights, text: Text | Read, inner: Any = None) -> jax.Array:
        r"""Supervised loss of each row, averaged over its completion's tokens.

        .. math:: \ell_i = -\frac{1}{|a_i|} \sum_t \log \pi(a_{i,t} \mid p_i, a_{i,<t})

        Returns:
            losses_B in nats a token; exactly 0, with zero gradient, for a masked row.

        Source: the paper, section 2.1, the supervised loss l(p_i, a_i; theta).
        """
        logprobs_BT = self.logprobs(weights, text, inner)
        rows = text.text if isinstance(text, Read) else text
        target_BT = rows.target_BT.astype(logprobs_BT.dtype)
        return -(logprobs_BT * target_BT).sum(-1) / jnp.maximum(target_BT.sum(-1), 1)

    def _own_adapter(self, weights: Weights) -> Any:
        return weights.policy if self.generator == "lora" else None

    def _join(self, own: Any, inner: Any) -> Any:
        if inner is None:
            return own
        inner = lora.scaled(inner, self.inner_scale)
        return inner if own is None else lora.concatenate(own, inner)

    def _parts(self, weights: Weights) -> tuple[suffix.Part, suffix.Part]:
        return suffix.split(self.model, self.params(weights), self.inner_blocks, self._own_adapter(weights))
