"""Screens families of problems: does adapting to correct examples of a family improve the answers to it?

Meta-training can only teach a generator to write examples if correct examples help. The screen measures this on the
training side, before any meta-training. Problems are answered in groups; a group adapts once to one draw of correct
examples, none of which is one of its problems, so its intervals resample groups.

Shape suffixes: G groups, M examples per group, N problems.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from mass_jax import runtime, stats
from mass_jax.errors import UserError
from mass_jax.evaluation import screen_store
from mass_jax.evaluation.screen_report import write_report
from mass_jax.method.generate import SyntheticExamples
from mass_jax.method.models import Weights
from mass_jax.method.text import Text
from mass_jax.tasks.base import Example, Problem, Verdict
from mass_jax.tasks.wrong_answers import wrong_answers
from mass_jax.training import rollout, train_solver
from mass_jax.training.components import Components
from mass_jax.types import Adapter

MIN_GAIN = 0.15  # of accuracy over Base, from correct examples
BUCKET = 32  # rows are padded to a multiple of it, in tokens
_GRPO_SHARE = 2  # Solver GRPO trains on at most this many times the number of screened problems


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure for every family.

    Attributes:
        problems: Number N of problems per cell.
        groups: Number G of draws of correct examples; each group answers N / G problems.
        steps: Numbers of inner steps K.
        examples: Numbers of correct examples.
        shots: Number of solved problems in the few-shot prompt.
        solver_grpo: Whether to train Solver GRPO on each family too, for the configured number of steps, where the
            family has as many other training problems as are screened; with fewer it would learn them by heart.
        controls: Whether to adapt also to the same examples with each other's answers, and to correct examples of the
            next family, for the first number of steps and of examples.
        seed: Random seed.

    Raises:
        UserError: If the groups do not divide the problems, or a number of steps or examples is given twice.
    """

    problems: int = 32
    groups: int = 4
    steps: tuple[int, ...] = (2, 4, 8)
    examples: tuple[int, ...] = (6, 12, 24)
    shots: int = 6
    solver_grpo: bool = False
    controls: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.problems % self.groups:
            raise UserError(f"--screen_problems={self.problems} is not a multiple of --screen_groups={self.groups}")
        for name in ("steps", "examples"):
            values = getattr(self, name)
            if len({*values}) < len(values):
                raise UserError(f"--screen_{name}={','.join(map(str, values))} has a number twice; give each once")


def screen(components: Components, plan: Plan, workdir: pathlib.Path, stop: runtime.Stop) -> dict[str, Any]:
    """Measures every family that the training problems have and that is not in the workdir yet; writes the report.

    Args:
        components: Components of the run; the task must have an oracle, and families as subjects.
        plan: What to measure.
        workdir: Directory of one JSON file per family and the report.
        stop: Polled between cells.

    Returns:
        The content of screen.json.

    Raises:
        UserError: If the task has no oracle or a family has too few problems.
        runtime.Interrupted: If a stop was requested; finished families are saved.
    """
    problems = components.problems(plan.seed)
    if problems.oracle is None:
        raise UserError(f"--task={components.config.task} has no correct examples to screen with; use another task")
    by_family: dict[str, list[Problem]] = {}
    for problem in problems.train:
        by_family.setdefault(problem.subject, []).append(problem)
    for family, pool in by_family.items():
        if len(pool) < plan.problems:
            raise UserError(
                f"family {family!r} has {len(pool)} training problems, fewer than --screen_problems={plan.problems}; "
                f"raise --num_train_problems, lower --screen_problems or leave it out"
            )
    settings = {**dataclasses.asdict(plan), "config": json.loads(components.config.to_json())}
    settings = json.loads(json.dumps(settings))
    found: dict[str, Any] = {}
    names = sorted(by_family)
    for number, family in enumerate(names):
        path = screen_store.path_of(workdir, family)
        result = screen_store.read_family(path, settings)
        if result is None:
            logging.info("screening family %s (%d of %d)", family, number + 1, len(by_family))
            pool, other = by_family[family], by_family[names[(number + 1) % len(names)]]
            result = _screen_family(components, plan, pool, other, problems.oracle, path.with_suffix(""), stop)
            screen_store.write_family(path, settings, result)
        found[family] = result
        summary = {"settings": settings, "kept": kept(found), "families": found}
        write_report(summary, workdir)
    return summary


def kept(families: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the families in which one cell with correct examples gains at least `MIN_GAIN` over Base."""
    return [name for name, result in families.items() if result["best_gain"] >= MIN_GAIN]


def _screen_family(
    components: Components,
    plan: Plan,
    pool: Sequence[Problem],
    other: Sequence[Problem],
    oracle: Callable[[Problem, int], list[Example]],
    workdir: pathlib.Path,
    stop: runtime.Stop,
) -> dict[str, Any]:
    """Measures all cells of one family; `other` are the problems of another one."""
    began, asked = time.monotonic(), pool[: plan.problems]
    size = plan.problems // plan.groups
    groups = [asked[i : i + size] for i in range(0, len(asked), size)]
    examples_GM = [_examples(group, oracle, max(plan.examples), "examples") for group in groups]
    shots_GM = [_examples(group, oracle, plan.shots, "shots") for group in groups]
    weights = components.pretrained()
    cells = {"base": _answer(components, weights, None, asked, None)}
    stop.poll()
    shots = [row for row in shots_GM for _ in range(size)]
    cells["few_shot"] = _answer(components, weights, None, asked, shots)
    for name, steps, rows_GM in _adaptations(plan, groups, examples_GM, other, oracle):
        stop.poll()
        adapters = _adapt(components, weights, groups, rows_GM, steps, plan.seed)
        adapted = jax.tree.map(lambda leaf: jnp.repeat(leaf, size, axis=0), adapters)
        cells[name] = _answer(components, weights, adapted, asked, None)
    others = list(pool[plan.problems : plan.problems * (1 + _GRPO_SHARE)])
    if plan.solver_grpo and len(others) < plan.problems:
        logging.warning(
            "no Solver GRPO: the family has %d training problems besides the screened ones, fewer than %d; raise "
            "--num_train_problems or lower --screen_problems",
            len(others),
            plan.problems,
        )
    elif plan.solver_grpo:
        trained = train_solver.train_solver_grpo(components, others, seed=plan.seed, workdir=workdir, stop=stop)
        cells["solver_grpo"] = _answer(components, trained, None, asked, None)
    found = _summary(cells, plan, time.monotonic() - began)
    return found | ({"other_family": other[0].subject} if plan.controls else {})


def _adaptations(
    plan: Plan,
    groups: Sequence[Sequence[Problem]],
    examples_GM: list[list[Example]],
    other: Sequence[Problem],
    oracle: Callable[[Problem, int], list[Example]],
) -> Iterator[tuple[str, int, list[list[Example]]]]:
    """Yields name, number of steps and examples by group of every cell that adapts."""
    for count in plan.examples:
        for steps in plan.steps:
            yield f"right_K{steps}_m{count}", steps, [row[:count] for row in examples_GM]
    if plan.controls:
        count, steps = plan.examples[0], plan.steps[0]
        yield f"wrong_K{steps}_m{count}", steps, [wrong_answers(row[:count]) for row in examples_GM]
        if other[0].subject != groups[0][0].subject:  # a task with one family has no other
            rows_GM = [_examples(other[i : i + 1], oracle, count, "examples") for i in range(len(groups))]
            yield f"other_K{steps}_m{count}", steps, rows_GM


def _examples(
    group: Sequence[Problem], oracle: Callable[[Problem, int], list[Example]], count: int, flag: str
) -> list[Example]:
    """Returns correct examples that are none of the group's problems; `flag` names the number in errors."""
    asked = {problem.problem for problem in group}
    try:
        drawn = [e for e in oracle(group[0], count + len(group)) if e.problem not in asked]
    except UserError as error:
        raise UserError(f"--screen_{flag}={count}: {error}; lower it") from None
    return drawn[:count]


def _adapt(
    components: Components,
    weights: Weights,
    groups: Sequence[Sequence[Problem]],
    examples_GM: list[list[Example]],
    steps: int,
    seed: int,
) -> Adapter:
    """Adapts once per group, for K steps with weight 1 per example; adapters have the leading axis G."""
    loop = dataclasses.replace(components.rollouts.loop, num_steps=steps)
    chosen = dataclasses.replace(components.rollouts, loop=loop)
    firsts = [group[0] for group in groups]
    synthetic: SyntheticExamples = chosen.dialogue.encode(
        firsts, [[""] * len(row) for row in examples_GM], [[*row] for row in examples_GM]
    )
    examples, keys = synthetic.examples, jax.random.split(jax.random.key(seed), len(groups))
    length = _bucket(int(examples.mask_BT.sum(-1).max()), examples.mask_BT.shape[-1])
    adapters = []
    for g in range(len(groups)):  # one at a time, which bounds the memory
        own = synthetic._replace(examples=Text(*(leaf[g : g + 1, :, :length] for leaf in examples)))
        adapters.append(chosen.adapt_to_examples(weights, own, keys[g : g + 1]))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *adapters)


def _bucket(length: int, most: int) -> int:
    """Returns a length rounded up to a multiple of `BUCKET`, which limits the number of compilations."""
    return min(-(-length // BUCKET) * BUCKET, most)


def _answer(
    components: Components,
    weights: Weights,
    adapted: Adapter | None,
    asked: Sequence[Problem],
    shots: Sequence[Sequence[Example]] | None,
) -> list[int]:
    """Answers greedily in batches of `eval_batch`; returns 1 for correct answers."""
    rollouts, size = components.rollouts, components.config.eval_batch
    responses: list[str] = []
    for i in range(0, len(asked), size):
        batch = rollout.filled(asked[i : i + size], size)
        numbers = [min(i + j, len(asked) - 1) for j in range(size)]
        if shots is None:
            tokens_NT, lengths_N = rollouts.dialogue.solver_prompts(batch)
        else:
            tokens_NT, lengths_N = rollouts.dialogue.few_shot_prompts(batch, [shots[number] for number in numbers])
        prompts = tokens_NT[:, : _bucket(int(lengths_N.max()), tokens_NT.shape[1])], lengths_N
        own = None if adapted is None else _rows(adapted, numbers)
        keys = jax.random.split(jax.random.key(0), size)  # unused by greedy answers
        _, texts_NM = rollouts.respond(weights, own, prompts, keys, 1, 0.0)
        responses += [texts[0] for texts in texts_NM[: len(asked) - i]]
    verdicts = rollouts.dialogue.task.verify(asked, responses)
    return [int(verdict is Verdict.RIGHT) for verdict in verdicts]


def _rows(adapted: Adapter, numbers: Sequence[int]) -> Adapter:
    """Returns the adapters of some problems."""
    return jax.tree.map(lambda leaf: leaf[np.asarray(numbers)], adapted)


def _summary(cells: Mapping[str, list[int]], plan: Plan, seconds: float) -> dict[str, Any]:
    """Returns accuracies, gains over Base with intervals over groups, the best cell, and the gain by content."""
    clusters = [str(n // (plan.problems // plan.groups)) for n in range(plan.problems)]
    base = np.array(cells["base"])
    rows: dict[str, dict[str, Any]] = {}
    for name, right in cells.items():
        gain = stats.clustered_mean(list(np.array(right) - base), clusters)
        rows[name] = {"accuracy": float(np.mean(right)), "ci95": list(stats.clustered_mean(right, clusters)[1:])}
        rows[name] |= {"gain": gain.mean, "gain_ci95": list(gain[1:]), "right": right}
    best = max((name for name in cells if name.startswith("right_")), key=lambda name: rows[name]["gain"])
    found = {"cells": rows, "best": best, "best_gain": rows[best]["gain"], "seconds": round(seconds, 1)}
    if plan.controls:
        same = f"K{plan.steps[0]}_m{plan.examples[0]}"
        content = np.array(cells[f"right_{same}"]) - np.array(cells[f"wrong_{same}"])
        found["content"] = list(stats.clustered_mean(list(content), clusters))
    return found
