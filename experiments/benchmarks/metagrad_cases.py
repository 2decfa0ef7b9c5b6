"""Presets and cases of `experiments.bench_metagrad`. A shape of your own can be one more entry of `PRESETS`."""

import dataclasses
import functools

from mass_jax import metagrad as mg
from mass_jax.config.adjoint import AdjointSettings
from mass_jax.method.adjoints import make_adjoint
from third_party.peers import problem


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        adjoint: name in `ADJOINTS`, value of `--adjoint` such as "truncated:2", or a peer.
        optimizer: inner optimizer, an expression; rates that it does not give are those of `rate_of`.
        remat: rematerialization of blocks: "block" recomputes all, "dots" all but products with weights.
        loss_chunk: token positions per chunk of logits; 0 means all.
        chunk: examples per chunk of gradients; None means all.
        product_chunk: examples per chunk of Hessian products; None uses `chunk`.
        num_steps: number of inner steps.
        examples: number of examples; 0 uses the preset's.
        timed: whether to run the case, or only to compile it.
        adjoint_remat: value of `--adjoint_remat`, for values of `--adjoint`.
    """

    adjoint: str
    optimizer: str = "sgd"
    remat: str = "none"
    loss_chunk: int = 0
    chunk: int | None = None
    product_chunk: int | None = None
    num_steps: int = 2
    examples: int = 0
    timed: bool = True
    adjoint_remat: str = "auto"

    @property
    def policy(self) -> str:
        """Describes the policies; "plain" if there are none."""
        parts = [self.adjoint_remat] if self.adjoint_remat != "auto" else []
        parts += [f"{self.remat} remat"] if self.remat != "none" else []
        parts += [f"loss_chunk={self.loss_chunk}"] if self.loss_chunk else []
        parts += [f"chunk={self.chunk}"] if self.chunk else []
        parts += [f"product_chunk={self.product_chunk}"] if self.product_chunk else []
        return ", ".join(parts) or "plain"

    @property
    def label(self) -> str:
        """Names the case in the log."""
        return f"{self.adjoint}, {self.policy}, {self.optimizer}, K={self.num_steps}" + (
            f", m={self.examples}" if self.examples else ""
        )


@dataclasses.dataclass(frozen=True)
class Preset:
    """Benchmark settings for one kind of machine.

    Attributes:
        size: shapes of the problem.
        dtype: data type of the weights.
        rounds: number of timed runs per case.
        loss_chunk: token positions per chunk of logits, in cases that use chunks.
        chunk: examples per chunk, in cases that use chunks.
        wide: number of examples in rows that show the effect of `chunk`.
        torch: whether to run the PyTorch peers.
        float64: whether to compute relative errors against float64.
        inner_steps: number of inner steps.
        optimizer: inner optimizer of the cases that have no other, an expression.
        tasks: number of tasks, each with its own examples, that are differentiated at once.
        own: the cases; empty means the standard ones, see `cases`.
    """

    size: problem.Size
    dtype: str = "float32"
    rounds: int = 3
    loss_chunk: int = 32
    chunk: int = 4
    wide: int = 48
    torch: bool = False
    float64: bool = True
    inner_steps: int = 2
    optimizer: str = "sgd"
    tasks: int = 1
    own: tuple[Case, ...] = ()

    @property
    def has_peers(self) -> bool:
        """Whether the PyTorch peers, which use SGD on one task, can compute the same meta-gradient."""
        return self.torch and self.tasks == 1 and self.optimizer == "sgd" and self.size.architecture is None


LLAMA_1B = problem.Size(16, 2048, 8192, 32, 8, 128256, 16, 12, 512, 2)
# Sizes: layers, width, features of the MLP, heads, key-value heads, vocabulary, LoRA rank (0 adapts all parameters),
# examples, tokens, rows of the outer batch.
PRESETS = {
    "tiny": Preset(problem.Size(2, 32, 64, 4, 2, 64, 2, 4, 16, 2), rounds=2, loss_chunk=8, chunk=2, wide=8, torch=True),
    "cpu": Preset(problem.Size(8, 256, 704, 8, 4, 4096, 8, 12, 128, 2), torch=True),
    "gpu": Preset(LLAMA_1B, "bfloat16", rounds=10, loss_chunk=128, float64=False),
    "tpu": Preset(LLAMA_1B, "bfloat16", rounds=10, loss_chunk=128, float64=False),
}
RATES = {"sgd": 0.1}
OTHER_RATE = 1e-3

ADJOINTS: dict[str, mg.Adjoint] = {
    "ReverseUnroll": mg.ReverseUnroll(),
    "ReverseUnroll(step)": mg.ReverseUnroll("step"),
    "ReverseUnroll(save_grads)": mg.ReverseUnroll("save_grads"),
    "MixedMode": mg.MixedMode(),
    "WeightedMixedMode": mg.WeightedMixedMode(),
    "WeightedMixedMode(recursive)": mg.WeightedMixedMode("recursive"),
    "WeightedMixedMode(replay)": mg.WeightedMixedMode("replay"),
    "FirstOrder": mg.FirstOrder(),
}
PLAIN_JAX = "peer: plain JAX"


def rate_of(optimizer: str) -> float:
    """Returns the learning rate of an optimizer that does not give one."""
    return RATES.get(optimizer, OTHER_RATE)


def adjoint_of(case: Case) -> mg.Adjoint:
    """Returns the adjoint of a case.

    Raises:
        ValueError: the adjoint is unknown, or does not have the rematerialization.
    """
    if case.adjoint in ADJOINTS:
        return ADJOINTS[case.adjoint]
    return make_adjoint(*AdjointSettings(adjoint=case.adjoint).parsed_adjoint, case.adjoint_remat)


def cases(preset: Preset) -> list[Case]:
    """Returns the measurements of a preset: its own, or the standard ones."""
    return list(preset.own) or [_adapted(case, preset) for case in _standard(preset)]


def _adapted(case: Case, preset: Preset) -> Case:
    """Returns a standard case with the inner steps and the optimizer of the preset."""
    steps = preset.inner_steps if case.num_steps == Case.num_steps else case.num_steps
    optimizer = preset.optimizer if case.optimizer == Case.optimizer else case.optimizer
    return dataclasses.replace(case, num_steps=steps, optimizer=optimizer)


def _standard(preset: Preset) -> list[Case]:
    """Returns every adjoint under several policies, and plain JAX."""
    chunk, wide = preset.chunk, preset.wide
    half = preset.size.examples // 2
    lean = functools.partial(Case, remat="block", loss_chunk=preset.loss_chunk)
    rows = [Case("ReverseUnroll"), Case("ReverseUnroll(step)"), Case("ReverseUnroll", remat="block")]
    rows += [Case("MixedMode"), Case("WeightedMixedMode"), Case("FirstOrder")]
    for optimizer in ("sgd", "adamw"):
        each = functools.partial(lean, optimizer=optimizer, timed=optimizer == "sgd")
        rows += [each("ReverseUnroll(step)"), each("MixedMode"), each("WeightedMixedMode")]
        rows += [each("WeightedMixedMode", product_chunk=half), each("FirstOrder")]
    rows += [lean("ReverseUnroll(save_grads)", timed=False), Case("ReverseUnroll", "adamw", timed=False)]
    for adjoint in ("ReverseUnroll(step)", "MixedMode", "WeightedMixedMode", "FirstOrder"):
        rows += [lean(adjoint, chunk=chunk), Case(adjoint, remat="dots", chunk=chunk)]
    rows += [Case("ReverseUnroll(step)", chunk=size) for size in (chunk, chunk // 2)]
    both = functools.partial(lean, "WeightedMixedMode", chunk=chunk, product_chunk=chunk // 2)
    rows += [Case("WeightedMixedMode", remat="dots", chunk=chunk, product_chunk=chunk // 2)]
    rows += [both(), both(num_steps=8, timed=False), both(examples=wide, timed=False)]
    return [*rows, Case(PLAIN_JAX)]


# nick-rui/metagrad-distill reports, for all parameters of GPT-2 124M with Adam, 52.1 GB of an 80 GB H100 at k=64,
# L=128, T=16, and out of memory at k=96, or L=256, or T=32. These are the same shapes on a Llama of 124M parameters;
# they are compiled and never run.
WALL = problem.Size(12, 768, 2048, 12, 12, 50257, 0, 64, 128, 8, tied=True)
WALL_CASES = (
    (WALL, Case("WeightedMixedMode(recursive)", "adam", "block", 32, 8, 4, 16)),
    (
        dataclasses.replace(WALL, examples=96, tokens=256),
        Case("WeightedMixedMode(recursive)", "adam", "block", 32, 8, 4, 32),
    ),
    (WALL, Case("ReverseUnroll(step)", "adam", "block", 32, 8, None, 16)),
    # Compilation time of a deep model.
    (
        dataclasses.replace(PRESETS["cpu"].size, layers=32),
        Case("WeightedMixedMode", "sgd", "block", 32),
    ),
)
