"""Every setting of a run in one frozen dataclass; each field is also a flag of the commands in `experiments/`."""

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable
from typing import Any

from mass_jax import strict_json
from mass_jax.errors import UserError

METHODS = ("base", "ttt", "tt_ss", "solver_grpo", "mass", "mass_gold")  # the paper's
BASELINES = ("few_shot", "majority", "ttt_other")  # ours beside them, for the asking
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def setting(
    default: Any, help: str, choices: tuple[str, ...] = (), minimum: float | None = None, path: bool = False
) -> Any:
    """A dataclass field with its help text, allowed values and minimum; `path` marks a path, or a name in its place."""
    metadata = {"help": help, "choices": choices, "minimum": minimum, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of meta-training and evaluation.

    Raises:
        ValueError: for an unknown or contradictory value, in one line that names the flag, the value and the fix.

    >>> Config(outer="golden")
    Traceback (most recent call last):
    ...
    ValueError: --outer='golden' is unknown; did you mean 'gold'? Known: both, gold, verifier
    """

    # What is adapted to what
    model: str = setting(
        "tiny",
        "'tiny' (embedded), or a directory or hub id with Hugging Face files of a Llama and a domain.json.",
        path=True,
    )
    task: str = setting("testbed", "What is practised: testbed, families, math, or a name added to CATALOGUE.")
    train_data: str = setting("math", "Training problems of --task=math: a name, a hub id or a local path.", path=True)
    eval_data: str = setting(
        "math500", "Evaluated problems of --task=math: a name, a hub id or a local path.", path=True
    )
    bad_rows: str = setting(
        "skip", "Rows of these that are no problems: counted, or an error.", choices=("skip", "error")
    )
    num_shots: int = setting(
        0,
        "Solved problems in every prompt of --task=math, and before the question in --task=families (at most 3); "
        "small models need some to keep the form.",
        minimum=0,
    )
    methods: tuple[str, ...] = setting(METHODS, "Rows of the table.", choices=METHODS + BASELINES)
    seeds: tuple[int, ...] = setting((0,), "Meta-training seeds; each is trained and evaluated on its own.")
    num_train_problems: int = setting(1000, "Problems to meta-train on.", minimum=1)
    num_eval_problems: int = setting(400, "Problems a column of the table.", minimum=2)
    controls: bool = setting(False, "Also train the controls: shuffled rewards, and no reward for the generator.")

    # Inner loop (paper 2.1): K steps of LoRA on weighted examples
    inner_optimizer: str = setting("sgd", "Inner optimizer.", choices=("sgd", "momentum", "adam", "adamw"))
    inner_lr: float = setting(0.2, "Rate of the inner optimizer.", minimum=0)
    inner_steps: int = setting(2, "Inner steps K, all of them differentiated through.", minimum=1)
    lora_rank: int = setting(4, "Rank of the per-task adapter.", minimum=1)
    lora_alpha: float = setting(4.0, "Scale of the adapter is alpha / rank.", minimum=0)
    lora_targets: tuple[str, ...] = setting(PROJECTIONS, "Projections that carry adapters.", choices=PROJECTIONS)
    lora_blocks: int = setting(
        0, "Last blocks that carry the per-task adapter; those before run once for all inner steps. 0: all.", minimum=0
    )
    adjoint: str = setting(
        "weighted",
        "How to differentiate through the inner loop.",
        choices=("weighted", "mixed", "reverse", "first_order"),
    )
    remat: str = setting("none", "Rematerialization of transformer blocks.", choices=("none", "dots", "block"))
    loss_chunk: int = setting(0, "Positions of a row whose logits are held at a time; 0 holds all.", minimum=0)
    base_dtype: str = setting(
        "float32", "Of the base weights; adapters and adjoints are float32.", choices=("float32", "bfloat16")
    )

    # Sampling
    num_examples: int = setting(12, "Practice examples m written for a task in meta-training.", minimum=2)
    num_test_examples: int = setting(6, "Practice examples written for a task at test time.", minimum=1)
    num_attempts: int = setting(6, "Attempts k of the adapted model in the verifier setting.", minimum=1)
    temperature: float = setting(1.0, "Of examples and attempts; answers at test time are greedy.", minimum=0)
    max_prompt_tokens: int = setting(8, "Longest prompt; a longer one is an error, nothing is cut.", minimum=1)
    max_generator_prompt_tokens: int = setting(8, "Longest prompt that asks for an example.", minimum=1)
    max_example_tokens: int = setting(12, "Longest generated example.", minimum=1)
    max_answer_tokens: int = setting(4, "Longest answer.", minimum=1)

    # Outer loop (paper 2.2, 2.3)
    outer: str = setting(
        "both",
        "Outer loss: gold solutions (mass_gold), verified attempts (mass), or both runs.",
        choices=("gold", "verifier", "both"),
    )
    steps: int = setting(120, "Meta-training steps.", minimum=1)
    warmup_steps: int = setting(20, "First steps, in which only the scorer learns.", minimum=0)
    tasks_per_step: int = setting(16, "Tasks (problems) a step.", minimum=1)
    generator: str = setting("full", "What of the generator is trained.", choices=("full", "lora"))
    generator_lora_rank: int = setting(16, "Rank of the generator's own adapter with --generator=lora.", minimum=1)
    generator_lr: float = setting(3e-4, "Adam rate of the generator.", minimum=0)
    lr_schedule: str = setting("linear", "Rate of the generator over its steps.", choices=("linear", "constant"))
    gamma: float = setting(0.1, "Weight of L_solve beside L_aux.", minimum=0)
    clip_ratio: float = setting(0.2, "Clip range of the policy ratio.", minimum=0)
    ratio_level: str = setting(
        "sequence", "Policy ratio of whole completions or of tokens.", choices=("sequence", "token")
    )
    advantage_eps: float = setting(0.01, "Floor of the reward deviation in advantages.", minimum=0)
    grad_clip: float = setting(1.0, "Global norm at which outer gradients are clipped.", minimum=0)
    scorer_lr: float = setting(3e-3, "Adam rate of the scorer.", minimum=0)
    scorer_layers: int = setting(1, "Blocks of the scorer's trunk.", minimum=1)
    scorer_width: int = setting(32, "Width of the scorer's trunk.", minimum=8)
    solver_grpo_lr: float = setting(1e-3, "Adam rate of the Solver GRPO baseline.", minimum=0)

    # The run
    eval_batch: int = setting(100, "Problems evaluated at a time.", minimum=1)
    checkpoint_every: int = setting(20, "Steps between checkpoints.", minimum=1)
    max_skipped_steps: int = setting(5, "Stop after so many steps in a row were skipped as not finite.", minimum=1)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"--warmup_steps={self.warmup_steps} leaves nothing of --steps={self.steps} to train the generator; "
                f"set --warmup_steps below --steps"
            )
        if self.num_test_examples > self.num_train_problems:
            raise ValueError(
                f"--num_test_examples={self.num_test_examples} is more than --num_train_problems="
                f"{self.num_train_problems}, from which TTT draws them; raise the second"
            )
        excluded = {"gold": "mass", "verifier": "mass_gold"}.get(self.outer)
        if excluded in self.methods and self.methods != METHODS:
            raise ValueError(f"--methods names {excluded!r}, which --outer={self.outer} excludes; use --outer=both")
        if "majority" in self.methods and not {"base", "tt_ss"} <= {*self.methods}:
            raise ValueError("--methods names 'majority', which votes as often as tt_ss costs; add base and tt_ss")
        if self.controls and "mass" not in self.chosen_methods:
            raise ValueError("--controls are variants of 'mass'; add it to --methods with --outer=verifier or both")

    @property
    def chosen_methods(self) -> tuple[str, ...]:
        """The rows of the table, after `outer` has left out what it excludes."""
        excluded = {"gold": "mass", "verifier": "mass_gold"}.get(self.outer)
        return tuple(name for name in self.methods if name != excluded)

    @property
    def num_solver_attempts(self) -> int:
        """Attempts a problem of Solver GRPO: the same budget of samples as MASS has."""
        return self.num_examples + self.num_attempts

    def located(self) -> "Config":
        """Returns the settings with existing local paths absolute, so that they hold in every working directory.

        Names stay as they are: the embedded model, hub ids, and the data sets of a task that reads none.

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
        """The settings as JSON, one a line."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Reads the settings that `to_json` wrote.

        Raises:
            ValueError, TypeError: the text is not JSON, not an object, or not one of settings; in one line.

        >>> Config.from_json(Config(seeds=(1, 2)).to_json()).seeds
        (1, 2)
        """
        read = strict_json.loads(text)
        if not isinstance(read, dict):
            raise UserError(f"{strict_json.kind(read)} in place of an object of settings")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read.items()}
        return cls(**settings)


def expand_user(path: str) -> str:
    """Expands `~` and `~user` at the start of a path.

    Raises:
        ValueError: there is no such user, or no home directory.

    >>> expand_user("runs/~tiny")
    'runs/~tiny'
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise ValueError(f"{path!r}: {user!r} names no home directory; write './{path}' for a path of that name")
    return expanded


def nearest(value: str, known: Iterable[str]) -> str:
    """Half a sentence that proposes the nearest known value.

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
    """Whether a value has the type of a setting's default; an integer is also a float, and a bool is no number."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_has_type_of(default[0], item) for item in value)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
