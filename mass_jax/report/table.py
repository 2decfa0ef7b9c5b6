"""The table: accuracies with clustered intervals, paired differences, costs; as a dictionary and as Markdown."""

import collections
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.stats import clustered_mean, paired_p

Records = Mapping[str, Sequence[Mapping[str, Any]]]  # row name -> one record a problem, a column and a seed

_SECONDS = "Seconds are of this run on this machine, the median over batches."
LIMITS: Mapping[str, tuple[str, ...]] = {
    "testbed": (
        "The testbed is constructed so that the effect can occur: the model knows more than it can say in a direct "
        "answer.",
        "Most of what is learned is one style of writing and staying on the target's operator.",
        "On operators seen in meta-training Solver GRPO can store what it was rewarded for, so read both columns.",
        "TTT draws examples of other operators, which cannot help here; in the paper it hurts.",
        _SECONDS,
    ),
    "families": (
        "One-step arithmetic in seven families, in short forms, under one cap on the tokens of an answer: no claim "
        "about reasoning at length.",
        "Every family occurs in meta-training; only the operands of the evaluated problems are new.",
        "What six examples of another family gain is what the form alone explains.",
        _SECONDS,
    ),
    "math": (_SECONDS,),
}


def make_table(records: Records, labels: Mapping[str, str], methods: Sequence[str]) -> dict[str, Any]:
    """All figures of the table.

    Args:
        records: what `mass_jax.evaluate` wrote, all seeds of a row together.
        labels: printed name of each row.
        methods: rows that are methods, in the order of the table; the others are references and controls.

    Returns:
        {"methods", "references", "paired", "subjects", "columns", "seeds"}; accuracies are shares of 1 and intervals
        are 95 %, clustered. `accuracy` is that of the first column.
    """
    columns = list(dict.fromkeys(record["column"] for record in next(iter(records.values()))))
    rows = {name: {"label": labels[name]} | _row(rows, columns) for name, rows in records.items()}
    shown = [name for name in methods if name in records]
    return {
        "methods": {name: rows[name] for name in shown},
        "references": {name: row for name, row in rows.items() if name not in shown},
        "paired": {column: _paired(records, shown, column) for column in columns},
        "subjects": {name: _by_subject(records[name], columns[0]) for name in shown},
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
    """How many answers and examples were cut off; nothing where records, from an earlier version, do not say."""
    names = [name for name in ("answers", "examples") if f"{name}_cut_off" in records[0]]
    return {name: sum(record[f"{name}_cut_off"] for record in records) for name in names}


def _paired(records: Records, shown: Sequence[str], column: str) -> list[dict[str, Any]]:
    """Differences between neighbouring rows, and of every row to the first, on the same problems."""
    pairs = dict.fromkeys([*((shown[0], other) for other in shown[1:]), *itertools.pairwise(shown)])
    found = []
    for lower, upper in pairs:
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


def _by_subject(records: Sequence[Mapping[str, Any]], column: str) -> dict[str, float]:
    subjects: dict[str, list[int]] = {}
    for record in records:
        if record["column"] == column:
            subjects.setdefault(record["subject"], []).append(record["right"])
    return {subject: sum(right) / len(right) for subject, right in subjects.items()}


def to_markdown(table: Mapping[str, Any], limits: Sequence[str]) -> str:
    """The table for people, with what it does not show beneath it."""
    columns = table["columns"]
    lines = [
        f"Accuracy in %, 95 % interval in brackets; seeds {', '.join(map(str, table['seeds']))}.",
        "",
        f"| | {' | '.join(columns)} | unparsable | tokens written | tokens trained | GFLOP | seconds |",
        "|---|" + "---|" * (len(columns) + 5),
    ]
    for kind in ("methods", "references"):
        lines += [_markdown_row(row, columns) for row in table[kind].values()]
    lines += [
        *_cut_off_markdown(table),
        "",
        "Costs are per question; floating-point operations by the formula of `mass_jax/cost.py`. Paired differences on "
        "the same problems, in points, with the p of an exact paired test (McNemar's, by cluster):",
        "",
    ]
    lines += [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    labels = {name: row["label"] for name, row in table["methods"].items()}
    for pairs in zip(*(table["paired"][column] for column in columns), strict=True):
        cells = [f"{_points(p['difference'], p['ci95'], sign='+')}, p = {p['p']:.2g}" for p in pairs]
        lines.append(f"| {labels[pairs[0]['to']]} − {labels[pairs[0]['from']]} | {' | '.join(cells)} |")
    lines += ["", f"Accuracy by subject in % ({columns[0]}):", "", *_by_subject_markdown(table)]
    if limits:
        lines += ["", "What this does not show:", "", *(f"- {line}" for line in limits)]
    return "\n".join(lines) + "\n"


def _cut_off_markdown(table: Mapping[str, Any]) -> list[str]:
    rows = [row for kind in ("methods", "references") for row in table[kind].values() if row["cut_off"]]
    found = [
        f"{row['label']} {', '.join(f'{count} {name}' for name, count in row['cut_off'].items() if count)}"
        for row in rows
        if any(row["cut_off"].values())
    ]
    return ["", f"Cut off at the limit on tokens: {'; '.join(found) or 'none'}."] if rows else []


def _by_subject_markdown(table: Mapping[str, Any]) -> list[str]:
    subjects = sorted({subject for row in table["subjects"].values() for subject in row})
    lines = [f"| | {' | '.join(subjects)} |", "|---|" + "---|" * len(subjects)]
    for name, row in table["subjects"].items():
        cells = [f"{100 * row[subject]:.0f}" if subject in row else "" for subject in subjects]
        lines.append(f"| {table['methods'][name]['label']} | {' | '.join(cells)} |")
    return lines


def _markdown_row(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    cells = [_points(row["columns"][column]["accuracy"], row["columns"][column]["ci95"]) for column in columns]
    cost = row["cost"]
    cells.append(f"{100 * row['verdicts'].get('unparsable', 0):.0f} %")
    cells += [f"{cost['tokens_written_per_question']:.0f}", f"{cost['tokens_trained_per_question']:.0f}"]
    cells += [f"{cost['flops_per_question'] / 1e9:.3g}", f"{cost['seconds_per_question']:.3f}"]
    return f"| {row['label']} | {' | '.join(cells)} |"


def _points(mean: float, interval: Sequence[float], sign: str = "") -> str:
    low, high = (f"{100 * bound:{sign}.1f}" for bound in interval)
    return f"{100 * mean:{sign}.1f} [{low}, {high}]"
