"""The tasks that `--task` can name. To register your own, add a function to `CATALOGUE`.

Example:
    >>> from mass_jax.tasks.base import Problem
    >>> def open_mine(config, directory, tokenizer):
    ...     problem = Problem("p", "1 + 1", solution="2", answer="2")
    ...     return Chosen(families.FamiliesTask(), lambda seed: Problems([problem], {"test": [problem]}, None))
    >>> CATALOGUE["mine"] = open_mine
    >>> open_task(Config(task="mine"), pathlib.Path(), tokenizer=None).problems(0).train[0].answer
    '2'
    >>> del CATALOGUE["mine"]
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

from absl import logging

from mass_jax.aliases import Tokenizer
from mass_jax.config import Config, nearest
from mass_jax.tasks import chat, example_form, families, testbed
from mass_jax.tasks.base import Problems, Task
from mass_jax.tasks.families.task import SYSTEM

__all__ = ["CATALOGUE", "Chosen", "open_task"]


def _close_nothing() -> None:
    """Default of `Chosen.close`."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A task with its problems, as a registered function returns it.

    Attributes:
        task: Prompts, parser and verifier.
        problems: Function from a random seed to the training and evaluation problems.
        end: Text of the single token that ends every completion; None selects the model's end-of-sequence token.
        close: Function that releases the task's resources, such as worker processes.
    """

    task: Task
    problems: Callable[[int], Problems]
    end: str | None = None
    close: Callable[[], None] = _close_nothing


def open_task(config: Config, directory: pathlib.Path, tokenizer: Tokenizer) -> Chosen:
    """Opens the task that `config.task` names.

    Args:
        config: Run configuration.
        directory: Directory of the model's files.
        tokenizer: Tokenizer of the model, from `llama.tokenizer.load`.

    Returns:
        The task with its problems. Call its `close` when done.

    Raises:
        ValueError: If the task is unknown, or its data is missing or unusable; the message has one line.
    """
    if config.task not in CATALOGUE:
        raise ValueError(f"--task={config.task!r} is unknown; {nearest(config.task, CATALOGUE)}")
    return CATALOGUE[config.task](config, directory, tokenizer)


def _testbed(config: Config, directory: pathlib.Path, tokenizer: Tokenizer) -> Chosen:
    if config.num_shots:
        raise ValueError(f"--num_shots={config.num_shots} does not apply to --task=testbed; remove it")
    example_form.refuse_other_forms(config.example_form, config.task)
    domain = testbed.Domain.load(directory / "domain.json")
    known = tokenizer.get_vocab()
    if unknown := [word for word in testbed.vocabulary(domain) if word not in known]:
        raise ValueError(f"{directory}: the tokenizer lacks {unknown[0]!r} of domain.json; use files of one model")

    def problems(seed: int) -> Problems:
        draw = functools.partial(testbed.draw_problems, domain, seed=seed)
        train = draw(testbed.Split.TRAIN, config.num_train_problems)
        splits = (testbed.Split.UNSEEN, testbed.Split.SEEN)
        columns = {split.value: draw(split, config.num_eval_problems) for split in splits}
        return Problems(train, columns, lambda p, count: testbed.oracle_examples(domain, p, count, seed))

    return Chosen(testbed.OperatorTask(domain), problems)


def _families(config: Config, directory: pathlib.Path, tokenizer: Tokenizer) -> Chosen:
    task = families.FamiliesTask(config.num_shots, chat.renderer(tokenizer, SYSTEM), config.example_form)
    return Chosen(task, functools.partial(families.open_problems, config), end=families.END)


def _math(config: Config, directory: pathlib.Path, tokenizer: Tokenizer) -> Chosen:
    from mass_jax.tasks import math  # imported here, so that other tasks do not need math-verify

    example_form.refuse_other_forms(config.example_form, config.task)
    render = chat.renderer(tokenizer)
    load = functools.partial(math.load, strict=config.bad_rows == "error")
    evaluation, train = load(config.eval_data, "test"), load(config.train_data, "train")
    for name, loaded in (("train_data", train), ("eval_data", evaluation)):
        for reason, count in loaded.skipped.items():
            logging.warning("--%s: skipped %d rows: %s (first in %s)", name, count, reason, loaded.first[reason])
    kept, dropped = math.disjoint(train.problems, evaluation.problems)
    logging.info("dropped %d training problems that duplicate problems of --eval_data", len(dropped))
    for duplicate in dropped:
        logging.info(
            "%s duplicates %s (similarity %.2f)", duplicate.problem.id, duplicate.partner.id, duplicate.similarity
        )
    shots, kept = math.take_shots(kept, config.num_shots, seed=0)
    if not kept:
        raise ValueError(
            f"--train_data={config.train_data} has no problem left: all {len(train.problems)} duplicate problems of "
            f"--eval_data={config.eval_data} or are shown as --num_shots; use other data"
        )
    usable = {"num_train_problems": len(kept), "num_eval_problems": len(evaluation.problems)}
    if over := {flag: count for flag, count in usable.items() if getattr(config, flag) > count}:
        asked = " and ".join(f"--{flag}={getattr(config, flag)} exceeds the {usable[flag]}" for flag in over)
        fix = " ".join(f"--{flag}={count}" for flag, count in over.items())
        raise ValueError(f"{asked} usable problems; pass {fix}")
    test = math.sample(evaluation.problems, config.num_eval_problems, seed=0)  # shared by all random seeds

    def draw(seed: int) -> Problems:
        return Problems(math.sample(kept, config.num_train_problems, seed), {"test": test}, None)

    pool = math.Pool()
    task = math.MathTask(math.Verifier(pool), shots, render=render)
    return Chosen(task, draw, close=pool.close)


def _reasoning(config: Config, directory: pathlib.Path, tokenizer: Tokenizer) -> Chosen:
    from mass_jax.tasks import reasoning  # imported here, so that other tasks do not need reasoning-gym

    task, problems, scorer = reasoning.open_families(config, tokenizer)
    return Chosen(task, problems, end=reasoning.END, close=scorer.close)


CATALOGUE: dict[str, Callable[[Config, pathlib.Path, Tokenizer], Chosen]] = {
    "testbed": _testbed,
    "families": _families,
    "math": _math,
    "reasoning_gym": _reasoning,
}
"""Functions that open a task, keyed by the value of `--task`.

Each function takes the run configuration, the directory of the model's files and its tokenizer, and returns a `Chosen`.
It raises `ValueError` with a one-line message if a setting or the data is unusable.
"""
