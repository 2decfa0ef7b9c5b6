"""Which weights act together: frozen base, generator's policy, and a task's inner adapter.

Letters: B rows, T tokens.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mass_jax.llama import Llama, LlamaConfig, lora, losses
from mass_jax.method.text import Text


class Weights(NamedTuple):
    """The generator's weights: what is frozen and what meta-training changes.

    Args:
        base: frozen parameters; empty if the generator is trained in full.
        policy: trained: all parameters, or the generator's own adapter over `base`.
    """

    base: Any
    policy: Any


@dataclasses.dataclass(frozen=True)
class Solver:
    """The language model pi_theta, which writes examples, adapts to them and answers.

    Args:
        model: the Llama.
        generator: "full" if the policy is all parameters, "lora" if it is an adapter over frozen ones.
        inner_scale: factor of the inner adapter's effect, alpha / rank.
    """

    model: Llama
    generator: Literal["full", "lora"] = "full"
    inner_scale: float = 1.0

    @property
    def config(self) -> LlamaConfig:
        return self.model.config

    def params(self, weights: Weights) -> Any:
        """The parameters under every adapter."""
        return weights.policy if self.generator == "full" else weights.base

    def adapter(self, weights: Weights, inner: Any = None) -> Any:
        """All that acts on top of `params`: the generator's adapter, the task's, or both as one of summed rank."""
        if inner is not None:
            inner = lora.scaled(inner, self.inner_scale)
        if self.generator == "full":
            return inner
        return weights.policy if inner is None else lora.concatenate(weights.policy, inner)

    def logprobs(self, weights: Weights, text: Text, inner: Any = None) -> jax.Array:
        """log pi(token | tokens before it), at each token's own position; 0 at the first.

        Returns:
            logprobs_BT, float32, in nats.
        """
        variables = lora.variables(self.params(weights), self.adapter(weights, inner))
        nll_BT = losses.token_nll(self.model, variables, text.tokens_BT, text.mask_BT)
        return jnp.pad(-nll_BT, ((0, 0), (1, 0)))

    def completion_nll(self, weights: Weights, text: Text, inner: Any = None) -> jax.Array:
        r"""Supervised loss of each row, averaged over its completion's tokens.

        .. math:: \ell_i = -\frac{1}{|a_i|} \sum_t \log \pi(a_{i,t} \mid p_i, a_{i,<t})

        Returns:
            losses_B in nats a token; exactly 0, with zero gradient, for a masked row.

        Source: the paper, section 2.1, the supervised loss l(p_i, a_i; theta).
        """
        logprobs_BT = self.logprobs(weights, text, inner)
        target_BT = text.target_BT.astype(logprobs_BT.dtype)
        return -(logprobs_BT * target_BT).sum(-1) / jnp.maximum(target_BT.sum(-1), 1)
