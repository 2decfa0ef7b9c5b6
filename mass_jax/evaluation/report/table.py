"""The results table: accuracies with clustered intervals, paired differences and costs."""

import collections
import itertools
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mass_jax.stats import clustered_mean, paired_p

Records = Mapping[str, Sequence[Mapping[str, Any]]]  # row name -> one record per problem, column and seed

MIN_PER_SUBJECT = 20  # the figure by subject leaves out subjects with fewer problems


class Note(NamedTuple):
    """A caveat printed beneath the table.

    Args:
        text: one sentence.
        rows: the note is printed only if the table has one of these rows; empty means always.
    """

    text: str
    rows: tuple[str, ...] = ()


_BEST = Note(
    "Best of n picks a correct sample by the gold answer, which a user does not have: a reference for sampling.",
    ("best_of_n",),
)
_QUEST = Note(
    "QueST-style self-synthesis changes only the prompt of TT-SS, to an instruction; it reproduces no other part of "
    "QueST.",
    ("quest",),
)
_SECONDS = Note("Seconds are the median over batches, measured on the machine of this run.")
LIMITS: Mapping[str, tuple[Note, ...]] = {
    "testbed": (
        Note(
            "The testbed is constructed so that the effect can occur: the model knows more than it can express in a "
            "direct answer."
        ),
        Note(
            "Most of what meta-training teaches here is one style of writing and staying on the target's operator.",
            ("mass", "mass_gold"),
        ),
        Note(
            "Solver GRPO can memorize answers for operators seen in meta-training, so compare both columns.",
            ("solver_grpo",),
        ),
        Note("TTT trains on examples of other operators, which cannot help here; in the paper it hurts.", ("ttt",)),
    ),
    "families": (
        Note(
            "One-step arithmetic in short forms, with a limit on answer tokens; nothing is claimed "
            "about longer reasoning."
        ),
        Note(
            "Operands of the evaluated problems are new; families are new only in a column named unseen.",
            ("solver_grpo", "mass", "mass_gold"),
        ),
        Note(
            "What TTT on another subject gains over the base model is explained by the answer format alone.",
            ("ttt_other",),
        ),
    ),
}


def limits_of(task: str) -> tuple[Note, ...]:
    """Returns the notes on a task's table: its own, and those on every table.

    >>> limits_of("mine")[-1].text
    'Seconds are the median over batches, measured on the machine of this run.'
    """
    return (*LIMITS.get(task, ()), _BEST, _QUEST, _SECONDS)


def applicable(notes: Sequence[Note], rows: Collection[str]) -> list[str]:
    """Texts of the notes that apply to a table with these rows.

    >>> applicable([Note("Always."), Note("TTT hurts.", ("ttt",))], ["base"])
    ['Always.']
    """
    return [note.text for note in notes if not note.rows or not set(note.rows).isdisjoint(rows)]


def training_cost(runs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float] | None:
    """Returns what it cost to train a row, on average over the seeds: steps, samples and seconds.

    Args:
        runs: metrics of each seed's training run, by step; none for a row that is not trained.

    Returns:
        Samples count examples and attempts; seconds are those of the steps, with compilation. A value that the metrics
        of an earlier version lack is left out. None if no run has steps.

    >>> training_cost([[{"samples": 20.0, "step_time": 1.5}, {"samples": 20.0, "step_time": 0.5}]])
    {'steps': 2.0, 'samples': 40.0, 'seconds': 2.0}
    """
    runs = [run for run in runs if run]
    if not runs:
        return None
    steps = [step for run in runs for step in run]
    totals = {"steps": float(len(steps))}
    for name, metric in (("samples", "samples"), ("seconds", "step_time")):
        if all(metric in step for step in steps):
            totals[name] = math.fsum(step[metric] for step in steps)
    return {name: total / len(runs) for name, total in totals.items()}


def make_table(
    records: Records,
    labels: Mapping[str, str],
    methods: Sequence[str],
    controls: Sequence[str] = (),
    training: Mapping[str, Mapping[str, float] | None] | None = None,
) -> dict[str, Any]:
    """Computes every number of the table.

    Args:
        records: records of the evaluation, all seeds of a row together.
        labels: printed name of each row.
        methods: rows that are methods, in the order of the table; the others are references and controls.
        controls: rows that are controls; the figure draws them as a group of their own.
        training: `training_cost` by row; rows without an entry were not trained.

    Returns:
        A dict with "methods", "references" (including controls), "controls", "paired", "subjects",
        "subject_details", "columns" and "seeds". Accuracies are fractions and intervals are 95%, clustered.
        "accuracy" is that of the first column.
    """
    columns = list(dict.fromkeys(record["column"] for record in next(iter(records.values()))))
    costs = training or {}
    rows = {
        name: {"label": labels[name]} | _row(rows, columns) | {"training": costs.get(name)}
        for name, rows in records.items()
    }
    shown = [name for name in methods if name in records]
    return {
        "methods": {name: rows[name] for name in shown},
        "references": {name: row for name, row in rows.items() if name not in shown},
        "controls": [name for name in controls if name in rows],
        "paired": {column: _paired(records, shown, column) for column in columns},
        "subjects": {name: _by_subject(records[name], columns[0]) for name in shown},
        "subject_details": _subject_details({name: records[name] for name in shown}, columns[0]),
        "columns": columns,
        "seeds": sorted({record["seed"] for record in next(iter(records.values()))}),
    }


def _row(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    by_column = {}
    for column in columns:
        chosen = [record for record in records if record["column"] == column]
        mean, *interval = clustered_mean([r["right"] for r in chosen], [r["cluster"] for r in chosen])
        by_column[column] = {"accuracy": mean, "ci95": interval, "problems": len(chosen)}
    cost = {
        f"{name}_per_question": statistics.fmean(record[name] for record in records)
        for name in ("tokens_written", "tokens_trained", "flops")
    }
    cost["seconds_per_question"] = statistics.median(record["seconds"] for record in records)  # without compilation
    verdicts = collections.Counter(record["verdict"] for record in records)
    shares = {verdict: count / len(records) for verdict, count in sorted(verdicts.items())}
    first = by_column[columns[0]]
    return {
        "accuracy": first["accuracy"],
        "ci95": first["ci95"],
        "columns": by_column,
        "cost": cost,
        "verdicts": shares,
        "cut_off": _cut_off(records),
    }


def _cut_off(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Counts of truncated answers and examples; empty for records of versions that did not count them."""
    names = [name for name in ("answers", "examples") if f"{name}_cut_off" in records[0]]
    return {name: sum(record[f"{name}_cut_off"] for record in records) for name in names}


def _paired(records: Records, shown: Sequence[str], column: str) -> list[dict[str, Any]]:
    """Differences of rows on the same problems, for the pairs of `_pairs`."""
    found = []
    for lower, upper in _pairs(records, shown):
        below, above = (
            {(r["seed"], r["id"]): r for r in records[name] if r["column"] == column} for name in (lower, upper)
        )
        both = [key for key in below if key in above]
        if not both:
            continue
        differences = [above[key]["right"] - below[key]["right"] for key in both]
        clusters = [below[key]["cluster"] for key in both]
        mean, *interval = clustered_mean(differences, clusters)
        found.append(
            {"from": lower, "to": upper, "difference": mean, "ci95": interval, "p": paired_p(differences, clusters)}
        )
    return found


def _pairs(records: Records, shown: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the pairs of rows to compare: neighbors, all with the first, and trained adaptation with the others.

    A row whose weights are also evaluated without adaptation, as NAME_unadapted, is compared with every row and with
    that one: the difference is what adaptation adds to the same weights.

    >>> _pairs({"base": [], "ttt": [], "tt_ss": [], "mass": [], "mass_unadapted": []}, ["base", "ttt", "mass"])
    [('base', 'ttt'), ('base', 'mass'), ('ttt', 'mass'), ('mass_unadapted', 'mass')]
    """
    pairs = [*((shown[0], other) for other in shown[1:]), *itertools.pairwise(shown)]
    for name in shown:
        unadapted = f"{name}_unadapted"
        if unadapted in records:
            pairs += [(other, name) for other in shown[: shown.index(name)]] + [(unadapted, name)]
    return [*dict.fromkeys(pairs)]


def _by_subject(records: Sequence[Mapping[str, Any]], column: str) -> dict[str, float]:
    subjects: dict[str, list[int]] = {}
    for record in records:
        if record["column"] == column:
            subjects.setdefault(record["subject"], []).append(record["right"])
    return {subject: sum(right) / len(right) for subject, right in subjects.items()}


def _subject_details(records: Records, column: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Number of distinct problems, interval, and paired gain over the first row, by row and subject."""
    base: dict[tuple[int, str], Any] = {}
    details: dict[str, dict[str, dict[str, Any]]] = {}
    for name, rows in records.items():
        chosen = [record for record in rows if record["column"] == column]
        base = base or {(record["seed"], record["id"]): record["right"] for record in chosen}
        details[name] = {
            subject: _detail([r for r in chosen if r["subject"] == subject], base if details else None)
            for subject in dict.fromkeys(record["subject"] for record in chosen)
        }
    return details


def _detail(records: Sequence[Mapping[str, Any]], base: Mapping[tuple[int, str], int] | None) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "problems": len({record["id"] for record in records}),
        "ci95": _interval([record["right"] for record in records], [record["cluster"] for record in records]),
    }
    if base is not None:
        both = [record for record in records if (record["seed"], record["id"]) in base]
        gains = [record["right"] - base[record["seed"], record["id"]] for record in both]
        detail["gain"] = statistics.fmean(gains) if gains else None
        detail["gain_ci95"] = _interval(gains, [record["cluster"] for record in both])
    return detail


def _interval(values: Sequence[float], clusters: Sequence[str]) -> list[float] | None:
    """The clustered interval; None for fewer than two clusters, between which nothing can be resampled."""
    return list(clustered_mean(values, clusters)[1:]) if len(set(clusters)) > 1 else None


def drawn_subjects(table: Mapping[str, Any]) -> list[str]:
    """Subjects with enough problems for the figure and an interval in every row, by the first row's accuracy."""
    rows = table["subject_details"]
    base = next(iter(rows))
    return [
        subject
        for subject in sorted(rows[base], key=lambda subject: -table["subjects"][base][subject])
        if all(
            subject in row
            and row[subject]["problems"] >= MIN_PER_SUBJECT
            and (name == base or row[subject]["gain_ci95"] is not None)
            for name, row in rows.items()
        )
    ]
