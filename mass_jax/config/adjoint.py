"""Settings of differentiation and memory: the adjoint, rematerialization, chunks and data types."""

import dataclasses
import math

from mass_jax.config.fields import nearest, setting

GIB = 2**30
SWEEP_REMATS = ("save_grads", "step", "recursive", "replay")
ADJOINT_REMATS: dict[str, tuple[str, ...]] = {
    "weighted": SWEEP_REMATS,
    "mixed": SWEEP_REMATS,
    "reverse": ("none", "save_grads", "step", "recursive"),
    "first_order": (),
    "truncated": (),
}
"""Adjoints, with the values of --adjoint_remat that each accepts besides auto."""
STORES = ("device", "host", "disk")
STORED_ADJOINTS = ("weighted", "mixed")
"""Adjoints that accept every value of --adjoint_store."""
KNOWN_ADJOINTS = tuple("truncated:2" if name == "truncated" else name for name in ADJOINT_REMATS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdjointSettings:
    """Settings of differentiation and memory. All but the adjoint and the data types change results by rounding only.

    A limit on the number of examples or problems at a time means the largest divisor of their number up to the limit.
    """

    adjoint: str = setting(
        "weighted",
        "How to compute the meta-gradient: weighted, mixed, reverse, first_order, or truncated:2 for the last 2 inner "
        "steps. All are exact except first_order and truncated; weighted is the cheapest exact one.",
    )
    adjoint_remat: str = setting(
        "auto",
        "What the adjoint stores of each inner step: save_grads stores states and gradients, step only states, "
        "recursive about sqrt(K) states, replay all gradients (weighted and mixed only), none also the activations "
        "(--adjoint=reverse only). auto is none for --adjoint=reverse and save_grads for weighted and mixed; "
        "first_order and truncated have no other.",
        choices=("auto", "none", *SWEEP_REMATS),
    )
    adjoint_store: str = setting(
        "device",
        "Where the adjoint keeps what it stores of each inner step: device, host for the host's memory, or "
        "disk[:DIRECTORY] for an unnamed file there, by default in the directory of temporary files. With host and "
        "disk, device memory does not grow with --inner_steps. They need one device and --adjoint=weighted or mixed.",
    )
    remat: str = setting(
        "none",
        "Rematerialization of transformer blocks: none saves all activations, dots saves products with weights, block "
        "recomputes everything.",
        choices=("none", "dots", "block"),
    )
    loss_chunk: int = setting(
        0, "Number of token positions whose logits are held in memory at a time; 0 means all.", minimum=0
    )
    example_chunk: int = setting(
        0,
        "Largest number of a problem's examples whose gradients are computed at a time in the inner loop; 0 means all.",
        minimum=0,
    )
    product_chunk: int = setting(
        0,
        "Largest number of a problem's examples in a Hessian product, which takes twice the memory of a gradient; 0 "
        "means that of --example_chunk. For --adjoint=weighted and truncated.",
        minimum=0,
    )
    tasks_at_a_time: int = setting(
        0,
        "Largest number of problems that are adapted to, differentiated and trained on at a time, so that memory does "
        "not grow with --tasks_per_step; 0 means all. With --mesh, a multiple of its data axis.",
        minimum=0,
    )
    attention: str = setting(
        "full",
        "Attention scores in memory: full for all pairs of tokens, blockwise for at most --attention_block queries at "
        "a time, recomputed in the backward pass, auto for blockwise where there are more than 1,024 queries, or "
        "kernel for Pallas kernels on one GPU or TPU; on an H100 they are the fastest at 2,048 tokens and more.",
        choices=("full", "blockwise", "auto", "kernel"),
    )
    attention_block: int = setting(
        512, "Largest number of queries per block for --attention=blockwise or auto.", minimum=1
    )
    scan_unroll: int = setting(
        1,
        "Number of transformer blocks per iteration of the scan over blocks. More take longer to compile, can run "
        "faster, and need more memory; see docs/guides/plan_memory.md.",
        minimum=1,
    )
    base_dtype: str = setting(
        "float32",
        "Data type of the base weights; adapters and adjoints are always float32.",
        choices=("float32", "bfloat16"),
    )
    compute_dtype: str = setting(
        "auto",
        "Data type of the language model's activations: auto is that of --base_dtype, or float32 with --half_products. "
        "Adapters, adjoints, the softmax and the scorer stay float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    memory: str = setting(
        "off",
        "off uses the settings as given. auto[:GiB] compiles the meta-step under ever smaller memory policies, prints "
        "the table, and takes the first that fits into the given memory per device, or into that of the device. The "
        "run stores the chosen settings.",
    )

    @property
    def parsed_adjoint(self) -> tuple[str, int]:
        """The name of the adjoint, and the number of steps of truncated:n; 0 for the others.

        Raises:
            ValueError: the adjoint is unknown, or n is not a positive integer.

        >>> AdjointSettings(adjoint="truncated:2").parsed_adjoint
        ('truncated', 2)
        """
        name, colon, steps = self.adjoint.partition(":")
        if name == "truncated" and (not steps.isdecimal() or int(steps) < 1):
            raise ValueError(
                f"--adjoint={self.adjoint!r} needs a number of inner steps of at least 1, like truncated:2"
            )
        if name not in ADJOINT_REMATS or (colon and name != "truncated"):
            raise ValueError(f"--adjoint={self.adjoint!r} is unknown; {nearest(self.adjoint, KNOWN_ADJOINTS)}")
        return name, int(steps or 0)

    @property
    def parsed_store(self) -> tuple[str, str]:
        """The kind of the store, and the directory of disk:DIRECTORY; "" for the others.

        Raises:
            ValueError: the store is unknown.

        >>> AdjointSettings(adjoint_store="disk:/scratch").parsed_store
        ('disk', '/scratch')
        """
        kind, colon, directory = self.adjoint_store.partition(":")
        if kind not in STORES or (colon and (kind != "disk" or not directory)):
            raise ValueError(
                f"--adjoint_store={self.adjoint_store!r} is unknown; use device, host, disk, or disk:DIRECTORY"
            )
        return kind, directory

    @property
    def memory_bytes(self) -> float | None:
        """The parsed value of `memory` in bytes: None for off, infinity where the device decides.

        Raises:
            ValueError: it is neither off, auto nor auto with a positive number.

        >>> AdjointSettings(memory="auto:1.5").memory_bytes
        1610612736.0
        """
        if self.memory == "off":
            return None
        name, colon, size = self.memory.partition(":")
        try:
            value = float(size) if colon else math.inf
        except ValueError:
            value = math.nan
        if name != "auto" or not value > 0 or (colon and math.isinf(value)):
            raise ValueError(f"--memory={self.memory!r} is unknown; use off, auto, or a limit in GiB like auto:24")
        return value * GIB

    def check_differentiation(self) -> None:
        """Raises a ValueError, one line that names the flags, if the settings contradict each other."""
        name, _ = self.parsed_adjoint
        _ = self.memory_bytes
        if self.adjoint_remat not in ("auto", *ADJOINT_REMATS[name]):
            allowed = ", ".join(("auto", *ADJOINT_REMATS[name]))
            raise ValueError(
                f"--adjoint_remat={self.adjoint_remat} does not apply to --adjoint={self.adjoint}; use {allowed}"
            )
        if self.parsed_store[0] != "device" and name not in STORED_ADJOINTS:
            raise ValueError(
                f"--adjoint_store={self.adjoint_store} does not apply to --adjoint={self.adjoint}; use "
                f"--adjoint={' or '.join(STORED_ADJOINTS)}"
            )
        if self.parsed_store[0] != "device" and self.adjoint_remat in ("recursive", "replay"):
            raise ValueError(
                f"--adjoint_store={self.adjoint_store} does not apply to --adjoint_remat={self.adjoint_remat}, which "
                f"keeps its states on the device; use auto, save_grads or step"
            )
        if self.attention in ("full", "kernel") and self.attention_block != AdjointSettings.attention_block:
            raise ValueError(f"--attention_block={self.attention_block} needs --attention=blockwise or auto")
        if self.product_chunk and name not in ("weighted", "truncated"):
            raise ValueError(
                f"--product_chunk={self.product_chunk} does not apply to --adjoint={self.adjoint}; use "
                f"--example_chunk, or --adjoint=weighted"
            )
