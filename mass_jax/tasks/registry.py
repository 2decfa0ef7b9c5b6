"""From a task's name to all that a run needs of it. A task of yours is one function more in `CATALOGUE`."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

from absl import logging

from mass_jax.config import Config, nearest
from mass_jax.tasks import chat, families, testbed
from mass_jax.tasks.base import Problems, Task
from mass_jax.tasks.families.task import SYSTEM


def _nothing() -> None:
    """Nothing to close."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A task with its problems.

    Args:
        task: prompts, parsing, verification.
        problems: the problem sets of a seed.
        end: text of one token that ends every completion; None is the model's own end token.
        close: frees what the task holds (worker processes).
    """

    task: Task
    problems: Callable[[int], Problems]
    end: str | None = None
    close: Callable[[], None] = _nothing


def open_task(config: Config, directory: pathlib.Path, tokenizer: Any) -> Chosen:
    """The task that `--task` names.

    Args:
        config: the settings.
        directory: the model's files.
        tokenizer: the model's.

    Raises:
        ValueError: for an unknown task, or data that is missing or unusable, in one line.
    """
    if config.task not in CATALOGUE:
        raise ValueError(f"--task={config.task!r} is unknown; {nearest(config.task, CATALOGUE)}")
    return CATALOGUE[config.task](config, directory, tokenizer)


def _testbed(config: Config, directory: pathlib.Path, tokenizer: Any) -> Chosen:
    if config.num_shots:
        raise ValueError(f"--num_shots={config.num_shots} is for --task=families and --task=math; leave it out")
    domain = testbed.Domain.load(directory / "domain.json")
    known = tokenizer.get_vocab()
    if unknown := [word for word in testbed.vocabulary(domain) if word not in known]:
        raise ValueError(f"{directory}: the tokenizer lacks {unknown[0]!r} of domain.json; take both from one model")

    def problems(seed: int) -> Problems:
        draw = functools.partial(testbed.draw_problems, domain, seed=seed)
        train = draw(testbed.Split.TRAIN, config.num_train_problems)
        splits = (testbed.Split.UNSEEN, testbed.Split.SEEN)
        columns = {split.value: draw(split, config.num_eval_problems) for split in splits}
        return Problems(train, columns, lambda p, count: testbed.oracle_examples(domain, p, count, seed))

    return Chosen(testbed.OperatorTask(domain), problems)


def _families(config: Config, directory: pathlib.Path, tokenizer: Any) -> Chosen:
    def problems(seed: int) -> Problems:
        train = families.draw_problems(families.Side.TRAIN, config.num_train_problems, seed)
        test = families.draw_problems(families.Side.TEST, config.num_eval_problems, seed)
        return Problems(train, {"test": test}, lambda p, count: families.oracle_examples(p, count, seed))

    task = families.FamiliesTask(config.num_shots, chat.renderer(tokenizer, SYSTEM))
    return Chosen(task, problems, end=families.END)


def _math(config: Config, directory: pathlib.Path, tokenizer: Any) -> Chosen:
    from mass_jax.tasks import math  # here, so that a run of another task does without math-verify

    render = chat.renderer(tokenizer)
    load = functools.partial(math.load, strict=config.bad_rows == "error")
    evaluation, train = load(config.eval_data, "test"), load(config.train_data, "train")
    for name, loaded in (("train_data", train), ("eval_data", evaluation)):
        for reason, count in loaded.skipped.items():
            logging.warning("--%s: %d rows left out: %s (first in %s)", name, count, reason, loaded.first[reason])
    kept, dropped = math.disjoint(train.problems, evaluation.problems)
    logging.info("%d training problems left out: --eval_data has them, or nearly so", len(dropped))
    for duplicate in dropped:
        logging.info("%s is like %s (%.2f)", duplicate.problem.id, duplicate.partner.id, duplicate.similarity)
    shots, kept = math.take_shots(kept, config.num_shots, seed=0)
    for flag, problems in (("num_train_problems", kept), ("num_eval_problems", evaluation.problems)):
        if (asked := getattr(config, flag)) > len(problems):
            raise ValueError(f"--{flag}={asked} is more than the {len(problems)} usable problems; lower it")
    test = math.sample(evaluation.problems, config.num_eval_problems, seed=0)  # the same for every seed

    def draw(seed: int) -> Problems:
        return Problems(math.sample(kept, config.num_train_problems, seed), {"test": test}, None)

    pool = math.Pool()
    task = math.MathTask(math.Verifier(pool), shots, render=render)
    return Chosen(task, draw, close=pool.close)


CATALOGUE: dict[str, Callable[[Config, pathlib.Path, Any], Chosen]] = {
    "testbed": _testbed,
    "families": _families,
    "math": _math,
}
