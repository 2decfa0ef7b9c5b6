"""Shapes of the accelerator benchmark: those of an 80 GB GPU, and small ones that a CPU runs in a minute."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mass_jax.llama import LlamaConfig
from mass_jax.llama.published import PUBLISHED
from mass_jax.llama.rope import Rope
from third_party.peers import problem


@dataclasses.dataclass(frozen=True)
class Preset:
    """Shapes of all cases.

    Attributes:
        large: architecture of the "8B" cases.
        medium: architecture of the "1B" cases.
        small: architecture of the "SmolLM2" cases.
        examples: examples m of a meta-gradient.
        few_examples: examples m of the cases that reverse mode in PyTorch can hold.
        tokens: tokens per example.
        outer_rows: rows of the outer batch.
        chunk: examples per chunk of gradients; Hessian products take half of them.
        loss_chunk: token positions per chunk of logits.
        rank: rank of the adapters.
        prompt_tokens: tokens of a prompt in decoding.
        new_tokens: generated tokens per sample.
        samples: samples per task in decoding.
        tasks: numbers of tasks in decoding, most wanted first.
        step_tasks: tasks of a meta-step of the small model.
        step_examples: examples per task of that meta-step.
        step_tokens: tokens of a prompt, and of a completion, in the paper's meta-step.
        long: model and batch of the meta-gradient in all parameters.
        long_steps: its inner steps.
        long_chunk: examples per chunk of its gradients.
        attention_tokens: lengths of the texts in the cases of attention alone, most wanted first.
        product: width of the square matrices whose product is the first ceiling.
        copied_bytes: size of the array whose copy is the second ceiling.
        peak_tflops: the card's peak in bfloat16 without sparsity; None if unknown.
        profiles: labels of the cases that also run once under the profiler.
    """

    large: LlamaConfig
    medium: LlamaConfig
    small: LlamaConfig
    examples: int
    few_examples: int
    tokens: int
    outer_rows: int
    chunk: int
    loss_chunk: int
    rank: int
    prompt_tokens: int
    new_tokens: int
    samples: int
    tasks: tuple[int, ...]
    step_tasks: int
    step_examples: int
    step_tokens: int
    long: problem.Size
    long_steps: int
    long_chunk: int
    attention_tokens: tuple[int, ...]
    product: int
    copied_bytes: int
    peak_tflops: float | None
    profiles: tuple[str, ...] = ()

    def profiled(self, programs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns those of the programs by label that run under the profiler."""
        return {label: program for label, program in programs.items() if label in self.profiles}


SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope=Rope(rope_theta=100000.0),
    tie_word_embeddings=True,
)
"""Architecture of SmolLM2-135M-Instruct."""


def _tiny(layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


PRESETS = {
    "h100": Preset(
        large=PUBLISHED["meta-llama/Llama-3.1-8B-Instruct"],
        medium=PUBLISHED["meta-llama/Llama-3.2-1B-Instruct"],
        small=SMOLLM2,
        examples=12,
        few_examples=4,
        tokens=512,
        outer_rows=6,
        chunk=4,
        loss_chunk=128,
        rank=16,
        prompt_tokens=256,
        new_tokens=128,
        samples=12,
        tasks=(6, 1, 16),
        step_tasks=16,
        step_examples=6,
        step_tokens=1024,
        # nick-rui/metagrad-distill: all parameters of GPT-2 124M, Adam, K = 16, batches of 64 x 128 tokens.
        long=problem.Size(12, 768, 2048, 12, 12, 50257, 0, 64, 128, 8, tied=True),
        long_steps=16,
        long_chunk=32,
        attention_tokens=(2048, 8192, 512),
        product=8192,
        copied_bytes=8 * 2**30,
        peak_tflops=989.0,
        profiles=(
            "8B: inner gradient, products saved, no chunks, adapter products in bfloat16",
            "8B: 72 samples, an adapter per task",
            "GPT-2 shape: WeightedMixedMode(replay), dots remat, 32 at a time, bfloat16",
        ),
    ),
    "cpu": Preset(
        large=_tiny(2),
        medium=_tiny(1),
        small=_tiny(1),
        examples=4,
        few_examples=2,
        tokens=16,
        outer_rows=2,
        chunk=2,
        loss_chunk=8,
        rank=2,
        prompt_tokens=8,
        new_tokens=4,
        samples=2,
        tasks=(2, 1),
        step_tasks=2,
        step_examples=2,
        step_tokens=8,
        long=problem.Size(1, 32, 64, 4, 4, 64, 0, 4, 16, 2, tied=True),
        long_steps=4,
        long_chunk=2,
        attention_tokens=(32,),
        product=256,
        copied_bytes=2**22,
        peak_tflops=None,
        profiles=(
            "8B: inner gradient, products saved, no chunks, adapter products in bfloat16",
            "8B: 4 samples, one adapter",
        ),
    ),
}
