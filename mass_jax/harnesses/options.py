"""Arguments of the models, as harnesses pass them on from their command lines."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from mass_jax import own_function
from mass_jax.config import nearest
from mass_jax.errors import UserError
from mass_jax.serving.source import RUNS

BATCH = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """Arguments of a model.

    Attributes:
        pretrained: "tiny", or a directory or hub id with Hugging Face files.
        workdir: instead, a workdir of `experiments.train`, whose trained generator answers.
        run: training run of the workdir: mass, mass_gold or pretrained; by default the first that exists.
        train_seed: meta-training seed of the workdir; by default its first.
        task: task that poses questions to `pretrained`, testbed by default; or the workdir's own task, named again, as
            module:function or file.py:function.
        inner_optimizer: with `adapt`, the workdir's own inner optimizer, named again.
        adapt: whether to adapt to each question.
        questions: whether texts are questions, which the task of the model poses; by default they are if `adapt`.
        policy: policy file; the default is WORKDIR/policy.json.
        log: event log; the default is WORKDIR/audit/events.jsonl.
        dtype: dtype of the parameters of `pretrained`, such as bfloat16; float32 by default. A run has its own.
        max_length: positions of prompt and generated text; by default those of the model.
        batch_size: texts or questions per batch.
        seed: random seed.

    Raises:
        UserError: arguments contradict each other, or the workdir has no trained generator.
    """

    pretrained: str | None = None
    workdir: str | None = None
    run: str | None = None
    train_seed: int | None = None
    task: str | None = None
    inner_optimizer: str | None = None
    adapt: bool = False
    questions: bool | None = None
    policy: str | None = None
    log: str | None = None
    dtype: str | None = None
    max_length: int | None = None
    batch_size: int = BATCH
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.pretrained is None) == (self.workdir is None):
            raise UserError("give either pretrained=MODEL, such as tiny, or workdir=WORKDIR of experiments.train")
        if self.adapt and self.questions is False:
            raise UserError("adapt=true adapts to questions: leave out questions=false")
        if self.pretrained is not None:
            self._check_pretrained(self.pretrained)
        else:
            _check_run(pathlib.Path(str(self.workdir)), self.run)
        if not self.adapt and (self.policy or self.log):
            raise UserError("policy and log are for adapt=true; leave them out, or add adapt=true")
        if self.poses and (self.dtype or self.max_length):
            raise UserError("dtype and max_length are for questions=false; leave them out")
        if self.workdir is not None and self.dtype:
            raise UserError("dtype is for pretrained=MODEL; a run has its own, so leave dtype out")

    @property
    def poses(self) -> bool:
        """Whether texts are questions."""
        return self.adapt if self.questions is None else self.questions

    @property
    def source(self) -> str:
        """The model or the workdir."""
        return str(self.workdir if self.pretrained is None else self.pretrained)

    def _check_pretrained(self, pretrained: str) -> None:
        if is_workdir(pathlib.Path(pretrained)):
            raise UserError(f"pretrained={pretrained} is a workdir; give workdir={pretrained}")
        if self.run is not None or self.train_seed is not None:
            raise UserError("run and train_seed are for workdir=WORKDIR; leave them out")
        if self.adapt and not (self.policy and self.log):
            raise UserError(
                "adapt=true with pretrained=MODEL needs policy=FILE and log=FILE; "
                "python -m experiments.audit policy prints a policy"
            )


def parse(arguments: Mapping[str, Any]) -> Options:
    """Reads arguments as a harness passes them: of the right types, or as strings.

    Args:
        arguments: values by name; None stands for the default.

    Raises:
        UserError: a name is unknown, or a value has another type.

    >>> parse({"pretrained": "tiny", "questions": "true", "batch_size": "4"}).batch_size
    4
    """
    kinds = {field.name: field.type for field in dataclasses.fields(Options)}
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in kinds:
            raise UserError(f"mass_jax has no argument {name!r}; {nearest(name, kinds)}")
        if value is not None:
            given[name] = _converted(name, value, str(kinds[name]))
    return Options(**given)


def _converted(name: str, value: Any, kind: str) -> Any:
    """Returns a value in the type of its field."""
    if "bool" in kind:
        if str(value).lower() not in ("true", "false"):
            raise UserError(f"{name}={value!r} is neither true nor false")
        return str(value).lower() == "true"
    if "int" in kind:
        if name == "batch_size" and value == "auto":
            return BATCH
        least = 0 if "seed" in name else 1
        if isinstance(value, bool) or not str(value).isascii() or not str(value).isdigit() or int(value) < least:
            raise UserError(f"{name}={value!r} is not an integer of at least {least}")
        return int(value)
    if name in ("workdir", "policy", "log"):
        return str(pathlib.Path(str(value)).expanduser().absolute())  # Inspect changes the working directory
    return own_function.located(str(value)) if name == "inner_optimizer" else str(value)


def is_workdir(path: pathlib.Path) -> bool:
    """Returns whether a directory is a workdir, and not a model."""
    return (path / "config.json").is_file() and not (path / "tokenizer.json").is_file()


def _check_run(workdir: pathlib.Path, run: str | None) -> None:
    if not is_workdir(workdir):
        raise UserError(f"workdir={workdir} holds no run; make one with experiments.train, or give pretrained=MODEL")
    if run is None and not any(
        step.name.isdigit() for name in RUNS for step in workdir.glob(f"seed*/{name}/checkpoints/*")
    ):
        raise UserError(f"workdir={workdir} has no trained generator; train it, or give run=pretrained")
