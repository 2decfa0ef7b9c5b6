"""Evaluation: the rows of the table, each a way to prepare for a problem before answering it.

Letters: N tasks, M examples of a task.
"""

import dataclasses
import json
import pathlib
import random
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from mass_jax import runtime, train
from mass_jax.assemble import Parts, Problems
from mass_jax.method import generate
from mass_jax.method.models import Weights
from mass_jax.tasks.problem import Example, Problem, Rejected


@dataclasses.dataclass(frozen=True)
class Row:
    """One method: whose weights answer, and what they practise on first.

    Args:
        label: as the table prints it.
        trained: name of the training run whose weights are used; None is the pretrained model.
        practice: "none"; "train", examples drawn from the training problems; "self", written by the model for this
            problem; "oracle", right examples of the target's own kind, an upper bound.
    """

    label: str
    trained: str | None
    practice: Literal["none", "train", "self", "oracle"]


ROWS = {
    "base": Row("Base", None, "none"),
    "ttt": Row("TTT", None, "train"),
    "tt_ss": Row("TT-SS", None, "self"),
    "solver_grpo": Row("Solver GRPO", "solver_grpo", "none"),
    "mass": Row("MASS", "mass", "self"),
    "mass_gold": Row("MASS_gold", "mass_gold", "self"),
}
REFERENCES = {
    "mass_unadapted": Row("MASS weights, no adaptation", "mass", "none"),
    "mass_gold_unadapted": Row("MASS_gold weights, no adaptation", "mass_gold", "none"),
    "oracle": Row("Right examples, as many (reference)", None, "oracle"),
    "mass_shuffled": Row("Control: rewards shuffled", "mass_shuffled", "self"),
    "mass_unrewarded": Row("Control: generator not rewarded", "mass_unrewarded", "self"),
}
ALL_ROWS = ROWS | REFERENCES


def evaluate(
    parts: Parts,
    weights: Weights,
    name: str,
    problems: Problems,
    *,
    seed: int,
    path: pathlib.Path,
    stop: runtime.Stop,
) -> None:
    """Evaluates one row on every column and writes one JSON line a problem to `path`; done already, it returns.

    Args:
        weights: those that the row asks for.
        name: key of `ALL_ROWS`.
        problems: evaluation columns, and training problems for TTT.
        seed: of the practice examples; answers are greedy.
        path: records; written as a whole, so that a kill leaves all or nothing.
        stop: polled between batches.
    """
    if path.exists():
        return
    row = ALL_ROWS[name]
    records: list[dict[str, Any]] = []
    size = parts.config.eval_batch
    batches = [(c, p[i : i + size]) for c, p in problems.columns.items() for i in range(0, len(p), size)]
    for i, report in runtime.progress(f"evaluate {name}", 0, len(batches)):
        stop.poll()
        column, batch = batches[i]
        found = answer(parts, weights, row, problems, batch, jax.random.fold_in(jax.random.key(seed), i), seed)
        records += [record | {"row": name, "column": column, "seed": seed} for record in found]
        report(right=float(np.mean([record["right"] for record in records])))
    runtime.write_atomically(path, "".join(json.dumps(record) + "\n" for record in records))


def answer(
    parts: Parts, weights: Weights, row: Row, problems: Problems, batch: Sequence[Problem], key: jax.Array, seed: int
) -> list[dict[str, Any]]:
    """Prepares for each problem as the row says, answers greedily, verifies; one record a problem."""
    began = time.monotonic()
    tasks = filled(batch, parts.config.eval_batch)
    write_keys_N, adapter_keys_N, answer_keys_N = jax.random.split(key, (3, len(tasks)))
    practice, written_N = _practise(parts, weights, row, problems, tasks, write_keys_N, seed)
    adapted, trained_N = None, np.zeros(len(tasks))
    if practice is not None:
        trained_N = parts.config.inner_steps * practice.examples.mask_BT.sum((1, 2))
        adapters = parts.loop.init_adapters(adapter_keys_N)
        adapted = train.adapt_jit(parts.loop, weights, adapters, practice.kept_NM, practice.examples)
    attempts, right_NM, responses = train.attempt(parts, weights, adapted, tasks, answer_keys_N, 1, temperature=0.0)
    written_N = written_N + attempts.text.target_BT.sum((1, 2))
    seconds = (time.monotonic() - began) / len(batch)
    records = []
    for n, task in enumerate(batch):
        records.append(
            {
                "id": task.id,
                "subject": task.subject,
                "cluster": task.cluster_key,
                "answer": task.answer,
                "response": responses[n][0],
                "right": int(right_NM[n, 0]),
                "tokens_written": int(written_N[n]),
                "tokens_trained": int(trained_N[n]),
                "seconds": round(seconds, 4),
                **({} if practice is None else _describe(parts, task, practice, n)),
            }
        )
    return records


def filled(batch: Sequence[Problem], size: int) -> list[Problem]:
    """A smaller batch filled up by its last problem, so that it takes no compilation of its own."""
    return [*batch, *[batch[-1]] * (size - len(batch))]


def _practise(
    parts: Parts,
    weights: Weights,
    row: Row,
    problems: Problems,
    tasks: Sequence[Problem],
    keys_N: jax.Array,
    seed: int,
) -> tuple[generate.Practice | None, np.ndarray]:
    """What a row practises on, and how many tokens were written for it."""
    count, nothing_N = parts.config.num_test_examples, np.zeros(len(tasks))
    if row.practice == "none":
        return None, nothing_N
    if row.practice == "self":
        practice, written = train.write_examples(parts, weights, tasks, keys_N, count)
        return practice, written.text.target_BT.sum((1, 2))
    given_NM: list[list[Example | Rejected]] = [_given(row, problems, task, count, seed) for task in tasks]
    return parts.dialogue.encode(tasks, [[""] * count for _ in tasks], given_NM), nothing_N


def _given(row: Row, problems: Problems, task: Problem, count: int, seed: int) -> list[Example | Rejected]:
    """Practice examples that nobody writes: training problems, or right ones of the target's kind."""
    if row.practice == "oracle":
        if problems.oracle is None:
            raise ValueError(f"{row.label}: this task has no oracle for examples; leave the row out")
        return [*problems.oracle(task, count)]
    drawn = random.Random(f"mass ttt {seed} {task.id}").sample(problems.train, count)
    return [Example(p.problem, p.solution) for p in drawn]


def _describe(parts: Parts, task: Problem, practice: generate.Practice, n: int) -> dict[str, Any]:
    """The practice of one task, as a record keeps it."""
    examples: list[dict[str, Any]] = []
    for text, parsed in zip(practice.texts_NM[n], practice.parsed_NM[n], strict=True):
        if isinstance(parsed, Rejected):
            examples.append({"text": text, "rejected": parsed.reason})
        else:
            useful = parts.dialogue.task.useful(task, parsed)
            examples.append({"text": text, "problem": parsed.problem, "solution": parsed.solution, "useful": useful})
    return {"examples": examples}


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of one row."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
