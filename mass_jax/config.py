"""Configuration of a run: one frozen dataclass, whose fields are also flags of the commands in `experiments/`."""

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable
from typing import Any

from mass_jax import projections, strict_json
from mass_jax.errors import UserError
from mass_jax.rows import BASELINES, METHODS

PROJECTIONS = projections.NAMES


def setting(
    default: Any, help: str, choices: tuple[str, ...] = (), minimum: float | None = None, path: bool = False
) -> Any:
    """Declares a dataclass field with its help text, allowed values or items, minimum, and whether it may be a path."""
    metadata = {"help": help, "choices": choices, "minimum": minimum, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of meta-training and evaluation.

    Each field's `metadata["help"]` describes it.

    Raises:
        ValueError: If a value is unknown or contradicts another; the one-line message names the flag, the value and
            the fix.

    >>> Config(outer="golden")
    Traceback (most recent call last):
    ...
    ValueError: --outer='golden' is unknown; did you mean 'gold'? Known: both, gold, verifier
    """

    # Model, task and results table
    model: str = setting(
        "tiny",
        "Model to adapt: 'tiny' (embedded, offline), or a directory or hub id with the Hugging Face files of a Llama "
        "(for --task=testbed also a domain.json).",
        path=True,
    )
    task: str = setting("testbed", "Task to adapt to: testbed, families, math, or a name that you added to CATALOGUE.")
    train_data: str = setting(
        "math", "Training problems of --task=math: a named data set, a hub id or a local file.", path=True
    )
    eval_data: str = setting(
        "math500", "Evaluation problems of --task=math: a named data set, a hub id or a local file.", path=True
    )
    bad_rows: str = setting(
        "skip",
        "How to treat unusable rows of --train_data and --eval_data: skip and count them by reason, or stop with an "
        "error.",
        choices=("skip", "error"),
    )
    num_shots: int = setting(
        0,
        "Number of solved problems shown in every prompt of --task=math, or before the question in --task=families "
        "(at most 3). Small models need a few to follow the answer format.",
        minimum=0,
    )
    methods: tuple[str, ...] = setting(
        METHODS, "Rows of the results table; each is trained if it needs training.", choices=METHODS + BASELINES
    )
    seeds: tuple[int, ...] = setting(
        (0,), "Random seeds of meta-training, separated by commas; each is trained and evaluated on its own."
    )
    num_train_problems: int = setting(1000, "Number of problems to meta-train on.", minimum=1)
    num_eval_problems: int = setting(
        400, "Number of evaluation problems in each column of the results table.", minimum=2
    )
    controls: bool = setting(
        False, "Also train two controls of MASS: rewards shuffled within a problem, and no reward for the generator."
    )

    # Inner loop (paper 2.1): K steps of LoRA on weighted examples
    inner_optimizer: str = setting("sgd", "Optimizer of the inner loop.", choices=("sgd", "momentum", "adam", "adamw"))
    inner_lr: float = setting(0.2, "Learning rate of the inner optimizer; constant over its steps.", minimum=0)
    inner_steps: int = setting(
        2, "Number of inner steps K; meta-training differentiates through all of them.", minimum=1
    )
    lora_rank: int = setting(4, "Rank of the inner LoRA adapter.", minimum=1)
    lora_alpha: float = setting(4.0, "LoRA alpha; the inner adapter is scaled by alpha / rank.", minimum=0)
    lora_targets: tuple[str, ...] = setting(
        PROJECTIONS, "Projections with LoRA matrices, separated by commas; all by default.", choices=PROJECTIONS
    )
    lora_blocks: int = setting(
        0,
        "Number of last transformer blocks with an inner adapter; 0 means all. Earlier blocks run once for all inner "
        "steps.",
        minimum=0,
    )
    adjoint: str = setting(
        "weighted",
        "How to compute the meta-gradient. All are exact except first_order; weighted is the cheapest exact one.",
        choices=("weighted", "mixed", "reverse", "first_order"),
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
    base_dtype: str = setting(
        "float32",
        "Data type of the base weights; adapters and adjoints are always float32.",
        choices=("float32", "bfloat16"),
    )

    # Sampling
    num_examples: int = setting(12, "Number of synthetic examples m generated per problem in meta-training.", minimum=2)
    num_test_examples: int = setting(6, "Number of synthetic examples generated per problem at test time.", minimum=1)
    num_attempts: int = setting(
        6, "Number of attempts k that the adapted model samples per problem for --outer=verifier.", minimum=1
    )
    temperature: float = setting(
        1.0, "Sampling temperature of examples and attempts; answers at test time are greedy.", minimum=0
    )
    max_prompt_tokens: int = setting(
        8, "Maximum length of a problem's prompt, in tokens; a longer prompt is an error.", minimum=1
    )
    max_generator_prompt_tokens: int = setting(
        8, "Maximum length of the generator's prompt, in tokens; a longer prompt is an error.", minimum=1
    )
    max_example_tokens: int = setting(12, "Maximum length of a generated example, in tokens.", minimum=1)
    max_answer_tokens: int = setting(4, "Maximum length of a generated answer, in tokens.", minimum=1)

    # Outer loop (paper 2.2, 2.3)
    outer: str = setting(
        "both",
        "Outer loss: gold solutions (trains mass_gold), verified attempts (trains mass), or both, one after the other.",
        choices=("gold", "verifier", "both"),
    )
    steps: int = setting(120, "Number of meta-training steps, warm-up included.", minimum=1)
    warmup_steps: int = setting(20, "Number of first steps that update only the scorer.", minimum=0)
    tasks_per_step: int = setting(16, "Number of problems per meta-training step.", minimum=1)
    generator: str = setting(
        "full",
        "Trained parameters of the generator: all of the model, or a LoRA adapter on a frozen model.",
        choices=("full", "lora"),
    )
    generator_lora_rank: int = setting(16, "Rank of the generator's LoRA adapter for --generator=lora.", minimum=1)
    generator_lr: float = setting(3e-4, "Learning rate of the generator's Adam optimizer.", minimum=0)
    lr_schedule: str = setting(
        "linear",
        "Learning rate of the generator after the warm-up: linear decay to 0, or constant.",
        choices=("linear", "constant"),
    )
    gamma: float = setting(0.1, "Weight of L_solve in the generator's loss L_aux + gamma * L_solve.", minimum=0)
    clip_ratio: float = setting(
        0.2, "Clip range of the policy ratio: it is clipped to 1 - clip_ratio .. 1 + clip_ratio.", minimum=0
    )
    ratio_level: str = setting(
        "sequence", "Unit of the policy ratio: whole completions or single tokens.", choices=("sequence", "token")
    )
    advantage_eps: float = setting(
        0.01, "Constant added to the standard deviation of rewards that advantages are divided by.", minimum=0
    )
    grad_clip: float = setting(1.0, "Maximum global norm of outer gradients; larger ones are scaled down.", minimum=0)
    scorer_lr: float = setting(3e-3, "Learning rate of the scorer's Adam optimizer.", minimum=0)
    scorer_layers: int = setting(1, "Number of transformer blocks in the scorer's trunk.", minimum=1)
    scorer_width: int = setting(32, "Hidden size of the scorer's trunk.", minimum=8)
    solver_grpo_lr: float = setting(1e-3, "Learning rate of the Adam optimizer of the Solver GRPO baseline.", minimum=0)

    # Runtime
    eval_batch: int = setting(100, "Number of problems per evaluation batch.", minimum=1)
    checkpoint_every: int = setting(20, "Number of training steps between checkpoints.", minimum=1)
    max_skipped_steps: int = setting(
        5, "Stop the run after this many consecutive steps were skipped because of non-finite gradients.", minimum=1
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"--warmup_steps={self.warmup_steps} leaves no steps of --steps={self.steps} to train the generator; "
                f"set --warmup_steps below --steps"
            )
        if self.num_test_examples > self.num_train_problems:
            raise ValueError(
                f"--num_test_examples={self.num_test_examples} exceeds --num_train_problems="
                f"{self.num_train_problems}, from which TTT samples them; raise --num_train_problems"
            )
        excluded = {"gold": "mass", "verifier": "mass_gold"}.get(self.outer)
        if excluded in self.methods and self.methods != METHODS:
            raise ValueError(f"--methods names {excluded!r}, which --outer={self.outer} excludes; use --outer=both")
        if "majority" in self.methods and not {"base", "tt_ss"} <= {*self.methods}:
            raise ValueError(
                "--methods names 'majority', whose number of votes matches the cost of tt_ss; add base and tt_ss"
            )
        if self.controls and "mass" not in self.chosen_methods:
            raise ValueError("--controls are variants of 'mass'; add it to --methods with --outer=verifier or both")

    @property
    def chosen_methods(self) -> tuple[str, ...]:
        """Rows of the results table: `methods` without the one that `outer` excludes."""
        excluded = {"gold": "mass", "verifier": "mass_gold"}.get(self.outer)
        return tuple(name for name in self.methods if name != excluded)

    @property
    def num_solver_attempts(self) -> int:
        """Number of attempts per problem of Solver GRPO; matches the sampling budget of MASS."""
        return self.num_examples + self.num_attempts

    def located(self) -> "Config":
        """Returns the settings with existing local paths made absolute, which makes them valid anywhere.

        Names are unchanged: the embedded model, hub ids, and data sets of tasks other than math.

        >>> Config(model="tiny").located().model
        'tiny'
        """
        paths = {name: expand_user(getattr(self, name)) for name in ("model", "train_data", "eval_data")}
        found: dict[str, Any] = {
            name: os.path.realpath(path) if os.path.exists(path) else path
            for name, path in paths.items()
            if (path != "tiny" if name == "model" else self.task == "math")
        }
        return dataclasses.replace(self, **found)

    def to_json(self) -> str:
        """Returns the settings as a JSON object, one setting per line."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Parses settings written by `to_json`.

        Raises:
            ValueError, TypeError: If the text is not a JSON object of valid settings; the message is one line.

        >>> Config.from_json(Config(seeds=(1, 2)).to_json()).seeds
        (1, 2)
        """
        read = strict_json.loads(text)
        if not isinstance(read, dict):
            raise UserError(f"expected an object of settings, got {strict_json.kind(read)}")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
        return cls(**settings)


def expand_user(path: str) -> str:
    """Expands `~` and `~user` at the start of a path.

    Raises:
        ValueError: If the user or the home directory does not exist.

    >>> expand_user("runs/~tiny")
    'runs/~tiny'
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise ValueError(f"{path!r}: {user!r} names no home directory; write './{path}' for a path with this name")
    return expanded


def nearest(value: str, known: Iterable[str]) -> str:
    """Suggests the known value closest to a mistyped one, for use in an error message.

    >>> nearest("tyni", ["tiny", "llama"])
    "did you mean 'tiny'? Known: llama, tiny"
    """
    close = difflib.get_close_matches(value, list(known := sorted(known)), n=1, cutoff=0.3)
    return (f"did you mean {close[0]!r}? " if close else "") + f"Known: {', '.join(known)}"


def _check(field: dataclasses.Field, value: Any) -> None:
    if not _has_type_of(field.default, value):
        kind = type(field.default).__name__
        raise ValueError(f"--{field.name}={value!r} must be {kind}, like {field.default!r}")
    choices, minimum = field.metadata["choices"], field.metadata["minimum"]
    if choices:
        for item in value if isinstance(value, tuple) else (value,):
            if item not in choices:
                raise ValueError(f"--{field.name}={item!r} is unknown; {nearest(str(item), choices)}")
    if isinstance(value, tuple) and not value:
        raise ValueError(f"--{field.name} is empty; name at least one")
    if minimum is not None and not value >= minimum:
        raise ValueError(f"--{field.name}={value} is below its minimum {minimum:g}")


def _has_type_of(default: Any, value: Any) -> bool:
    """Returns whether a value has the type of a setting's default; integers count as floats, booleans do not."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_has_type_of(default[0], item) for item in value)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
