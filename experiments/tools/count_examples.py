"""Counts the examples that the rows of a run adapted to: accepted, correct, and correct and of the target's family.

    python -m experiments.tools.count_examples --workdir=runs/smollm2_gold

Reads the records of an evaluation with --task=families; measures nothing. An example is correct if its problem belongs
to one of the families and its solution is right, whatever the target's family. WORKDIR/report gets examples.json and
examples.md. Shares are of all examples that were written, for all seeds together.
"""

import collections
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.evaluation.order import records_path
from mass_jax.evaluation.records import read_records
from mass_jax.rows import ROWS
from mass_jax.runtime import jsonl
from mass_jax.tasks.families import FamiliesTask

Count = dict[str, Any]


def count(records: Iterable[Mapping[str, Any]]) -> dict[str, Count]:
    """Counts the examples of one row by column.

    >>> example = {"text": " 2 * 3 Answer: 6", "problem": "2 * 3", "solution": "6", "useful": True}
    >>> record = {"column": "seen", "examples": [example, {"text": "6", "rejected": "not of the form"}]}
    >>> count([record])["seen"]
    {'written': 2, 'accepted': 1, 'correct': 1, 'useful': 1, 'different': 1}
    """
    task = FamiliesTask()
    counts: dict[str, collections.Counter[str]] = {}
    problems: dict[str, set[str]] = {}
    for record in records:
        found = counts.setdefault(record["column"], collections.Counter())
        for example in record.get("examples", ()):
            accepted = "problem" in example
            found["written"] += 1
            found["accepted"] += accepted
            if accepted:
                problems.setdefault(record["column"], set()).add(example["problem"])
                found["correct"] += task.recompute(example["problem"]) == example["solution"]
                found["useful"] += bool(example["useful"])
    names = ("written", "accepted", "correct", "useful")
    return {
        column: {name: found[name] for name in names} | {"different": len(problems.get(column, ()))}
        for column, found in counts.items()
        if found["written"]
    }


def table(counts: Mapping[str, Mapping[str, Count]]) -> str:
    """Formats the counts of all rows as a Markdown table."""
    lines = [
        "| row | problems | accepted | correct | correct, of the target's family | different problems written |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row, columns in counts.items():
        for column, found in columns.items():
            shares = (f"{100 * found[name] / found['written']:.1f} %" for name in ("accepted", "correct", "useful"))
            lines.append(f"| {ROWS[row].label} | {column} | {' | '.join(shares)} | {found['different']} |")
    return "\n".join(lines) + "\n"


def command(_: runtime.Stop) -> None:
    """Counts, and writes the results."""
    if flags.FLAGS.workdir is None:
        raise UserError("--workdir is missing; give a run of experiments.train with --task=families")
    workdir = pathlib.Path(flags.FLAGS.workdir)
    try:
        config = jsonl.loads((workdir / "config.json").read_bytes())
        seeds, task = config["seeds"], config["task"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--workdir={workdir} is not a run of experiments.train ({error!r})") from None
    if task != "families":
        raise UserError(f"--workdir={workdir} is a run of --task={task}; only families can check any example")
    counts = {}
    for row in ROWS:
        paths = [records_path(workdir / f"seed{seed}", row) for seed in seeds]
        if found := count(record for path in paths for record in read_records(path)):
            counts[row] = found
    if not counts:
        raise UserError(f"--workdir={workdir} holds no records with examples; evaluate it first")
    report = workdir / "report"
    runtime.write_atomically(report / "examples.json", json.dumps(counts, indent=1) + "\n")
    runtime.write_atomically(report / "examples.md", table(counts))
    print(table(counts), end="")


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


if __name__ == "__main__":
    DEFINE_path("workdir", None, "Directory of a run of experiments.train.")
    settings.run(main)
