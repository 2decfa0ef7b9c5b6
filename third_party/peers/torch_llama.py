"""Llama with LoRA in PyTorch, on the same weights, for the PyTorch peers.

Shape suffixes: B rows, T tokens, D width, N query heads, G key-value heads, H head features, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from third_party.peers import problem


class TorchLlama(torch.nn.Module):
    """Llama whose parameters are the LoRA matrices, in the order of `jax.tree.leaves`; base weights are constants."""

    def __init__(self, size: problem.Size, data: problem.Data, make: Callable[[Any], torch.Tensor] | None = None):
        super().__init__()
        self.size, make = size, make or tensor  # `make` converts leaves, or draws tensors of their shapes
        paths = jax.tree_util.tree_leaves_with_path(data.params)
        self.names = [jax.tree_util.keystr(path, simple=True, separator="__") for path, _ in paths]
        for name, (_, leaf) in zip(self.names, paths, strict=True):
            self.register_parameter(name, torch.nn.Parameter(make(leaf)))
        self.base = jax.tree.map(make, data.base)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Returns the mean negative log-likelihood per token of each row, [B]."""
        x_BTD = self.base["embed_tokens"]["embedding"][tokens_BT]
        for layer in range(self.size.layers):
            x_BTD = self.block(x_BTD, layer)
        embedding = self.base["embed_tokens"]["embedding"]
        head = self.base["lm_head"]["kernel"] if "lm_head" in self.base else embedding.T
        logits_BTV = norm(x_BTD, self.base["norm"]["weight"]) @ head
        wide = torch.promote_types(logits_BTV.dtype, torch.float32)
        log_BTV = torch.log_softmax(logits_BTV[:, :-1], dim=-1, dtype=wide)
        return -log_BTV.gather(-1, tokens_BT[:, 1:, None])[..., 0].mean(-1)

    def block(self, x_BTD: torch.Tensor, layer: int) -> torch.Tensor:
        """Applies one pre-norm block."""
        norms = self.base["layers"]
        mixed = self.attention(norm(x_BTD, norms["input_layernorm"]["weight"][layer]), layer)
        x_BTD = x_BTD + mixed
        y_BTD = norm(x_BTD, norms["post_attention_layernorm"]["weight"][layer])
        gate = self.project(y_BTD, "mlp", "gate_proj", layer)
        up = self.project(y_BTD, "mlp", "up_proj", layer)
        return x_BTD + self.project(torch.nn.functional.silu(gate) * up, "mlp", "down_proj", layer)

    def attention(self, x_BTD: torch.Tensor, layer: int) -> torch.Tensor:
        """Applies causal attention with explicit products, since fused kernels do not support double backward."""
        size, (rows, length, _) = self.size, x_BTD.shape
        heads = {"q_proj": size.heads, "k_proj": size.kv_heads, "v_proj": size.kv_heads}
        q, k, v = (
            self.project(x_BTD, "self_attn", name, layer).reshape(rows, length, count, -1).transpose(1, 2)
            for name, count in heads.items()
        )
        q, k = rotate(q), rotate(k)
        k, v = (part.repeat_interleave(size.heads // size.kv_heads, dim=1) for part in (k, v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(length, length, dtype=torch.bool, device=x_BTD.device).triu(1)
        mixed = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1) @ v
        return self.project(mixed.transpose(1, 2).reshape(rows, length, -1), "self_attn", "o_proj", layer)

    def project(self, x: torch.Tensor, parent: str, name: str, layer: int) -> torch.Tensor:
        """Computes x W + x A B, the second term in the dtype of the adapter."""
        a, b = (getattr(self, f"layers__{parent}__{name}__{part}")[layer] for part in "ab")
        return x @ self.base["layers"][parent][name]["kernel"][layer] + ((x.to(a.dtype) @ a) @ b).to(x.dtype)


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Applies RMSNorm with Llama's default epsilon."""
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def rotate(x_BNTH: torch.Tensor) -> torch.Tensor:
    """Applies rotary position embeddings with theta 10000."""
    half = x_BNTH.shape[-1] // 2
    device = x_BNTH.device
    frequency = 1.0 / 10000.0 ** (torch.arange(half, dtype=torch.float32, device=device) / half)
    angles = torch.arange(x_BNTH.shape[-2], dtype=torch.float32, device=device)[:, None] * frequency
    cosine, sine = angles.cos().to(x_BNTH.dtype), angles.sin().to(x_BNTH.dtype)
    first, second = x_BNTH[..., :half], x_BNTH[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def tensor(leaf: Any) -> torch.Tensor:
    """Copies an array to a tensor."""
    return torch.from_numpy(np.array(leaf))
