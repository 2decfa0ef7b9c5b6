"""Configuration of a run: one frozen dataclass, whose fields are also flags of the commands in `experiments/`."""

import dataclasses
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from mass_jax import optax_functions, own_function, strict_json
from mass_jax.config.adjoint import AdjointSettings
from mass_jax.config.fields import check, names_code
from mass_jax.config.inner import InnerSettings
from mass_jax.config.outer import OuterSettings
from mass_jax.config.runtime import RuntimeSettings
from mass_jax.config.sampling import SamplingSettings
from mass_jax.config.task import TaskSettings
from mass_jax.errors import UserError
from mass_jax.rows import METHODS, ROWS

OPTIMIZERS = ("inner_optimizer", "policy_optimizer", "scorer_optimizer", "solver_grpo_optimizer", "learn_optimizer")
"""Settings that are expressions of `mass_jax.expression`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RuntimeSettings, OuterSettings, SamplingSettings, AdjointSettings, InnerSettings, TaskSettings):
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

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))
        for name in OPTIMIZERS:
            try:
                optax_functions.check(getattr(self, name))
            except UserError as error:
                raise ValueError(f"--{name}={getattr(self, name)!r}: {error}") from None
        _ = self.rejected_value  # raises if it cannot be parsed
        _ = self.given_eps_root  # raises on invalid text
        _ = self.renamed_columns  # raises on invalid text
        _ = self.trackers  # raises on a contradiction
        self.check_differentiation()
        self._check_adaptation()
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
        sampled = next((name for name in self.methods if ROWS[name].is_sampled), None)
        if sampled and not {"base", "tt_ss"} <= {*self.methods}:
            raise ValueError(
                f"--methods names {sampled!r}, whose number of samples matches the cost of tt_ss; add base and tt_ss"
            )
        if self.dynamic_sampling and self.outer == "gold":
            raise ValueError(
                f"--dynamic_sampling={self.dynamic_sampling} needs attempts, which --outer=gold does not sample; use "
                f"--outer=verifier or both"
            )
        if self.controls and "mass" not in self.chosen_methods:
            raise ValueError("--controls are variants of 'mass'; add it to --methods with --outer=verifier or both")

    def _check_adaptation(self) -> None:
        """Checks settings of adapters and rows against each other."""
        if 0 < self.max_target_tokens < self.max_answer_tokens:
            raise ValueError(
                f"--max_target_tokens={self.max_target_tokens} is below --max_answer_tokens={self.max_answer_tokens}, "
                f"the length of attempts; raise it, or set 0"
            )
        if self.half_products and self.compute_dtype == "bfloat16":
            raise ValueError("--compute_dtype=bfloat16 contradicts --half_products, whose activations are float32")
        of_base = "float32" if self.half_products else self.base_dtype
        activations = of_base if self.compute_dtype == "auto" else self.compute_dtype
        if self.adapter_product_dtype == "bfloat16" and activations == "float32":
            raise ValueError(
                "--adapter_product_dtype=bfloat16 needs activations in bfloat16, but they are float32; use "
                "--compute_dtype=bfloat16 without --half_products"
            )
        if self.generator_lora_blocks and self.generator != "lora":
            raise ValueError(
                f"--generator_lora_blocks={self.generator_lora_blocks} needs --generator=lora, but --generator is "
                f"{self.generator}"
            )

    @property
    def chosen_methods(self) -> tuple[str, ...]:
        """Rows of the results table: `methods` without the one that `outer` excludes."""
        excluded = {"gold": "mass", "verifier": "mass_gold"}.get(self.outer)
        return tuple(name for name in self.methods if name != excluded)

    @property
    def num_solver_attempts(self) -> int:
        """Number of attempts per problem of Solver GRPO: the largest number of samples that MASS may draw.

        MASS draws num_examples + num_attempts samples per problem, and as many in every redraw of
        --dynamic_sampling. Solver GRPO does not redraw; it gets the samples of the redraws as attempts, used or not.

        >>> Config(num_examples=12, num_attempts=6, dynamic_sampling=2).num_solver_attempts
        54
        """
        return (self.num_examples + self.num_attempts) * (1 + self.dynamic_sampling)

    def located(self) -> "Config":
        """Returns the settings with existing local paths made absolute, which makes them valid anywhere.

        Names are unchanged: the embedded model, hub ids, and data sets of tasks other than math and your own. Files of
        optimizers count.

        >>> Config(model="tiny").located().model
        'tiny'
        """
        paths = {name: expand_user(getattr(self, name)) for name in ("model", "train_data", "eval_data")}
        found: dict[str, Any] = {
            name: os.path.realpath(path) if os.path.exists(path) else path
            for name, path in paths.items()
            if (path != "tiny" if name == "model" else self.task == "math" or names_code(self.task))
        } | {name: own_function.located(getattr(self, name)) for name in OPTIMIZERS}
        for setting in ("sampler", "task"):
            file, colon, name = getattr(self, setting).rpartition(":")
            if file.endswith(".py") and os.path.exists(expand_user(file)):
                found[setting] = os.path.realpath(expand_user(file)) + colon + name
        return dataclasses.replace(self, **found)

    def to_json(self) -> str:
        """Returns the settings as a JSON object, one setting per line."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, own_code: Collection[str] = ()) -> "Config":
        """Parses settings written by `to_json`.

        Args:
            text: the settings.
            own_code: optimizers of the user's own code that the user named, such as "my.py:make"; others are refused,
                since a file from somebody else must not run code.

        Raises:
            ValueError, TypeError: If the text is not a JSON object of valid settings; the message is one line.

        >>> Config.from_json(Config(seeds=(1, 2)).to_json()).seeds
        (1, 2)
        """
        read = strict_json.loads(text)
        if not isinstance(read, dict):
            raise UserError(f"expected an object of settings, got {strict_json.kind(read)}")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in completed(read).items()}
        config = cls(**settings)
        for name in OPTIMIZERS:
            value = getattr(config, name)
            if value not in own_code and own_function.own_code(value):
                raise own_function.CodeNotNamed(
                    f"the settings name code to run, {name}={value!r}; pass --{name} again if you trust it"
                )
        return config


EARLIER: dict[str, Any] = {
    "inner_eps_root": "1e-8",
    "rejected_reward": "zero",
    "drift_every": 0,
    "on_weak_signal": "ignore",
}
"""Settings that earlier versions did not have, where their behavior differs from today's default."""


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of an earlier version with those that were added since, at the values that it acted on.

    >>> completed({"inner_optimizer": "adam"})["inner_eps_root"]
    '1e-8'
    """
    added = {field.name: field.default for field in dataclasses.fields(Config)} | EARLIER
    as_json = {name: list(value) if isinstance(value, tuple) else value for name, value in added.items()}
    return as_json | settings


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the values that differ between two headers, and within their settings, by name.

    >>> differences({"seed": 0, "config": {"gamma": 1, "steps": 3}}, {"seed": 0, "config": {"gamma": 1, "steps": 4}})
    {'steps': (3, 4)}
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new)
        elif old != new:
            found[name] = (old, new)
    return found


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
