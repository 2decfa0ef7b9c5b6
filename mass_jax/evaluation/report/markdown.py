"""The results table as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.evaluation.report.table import MIN_PER_SUBJECT, drawn_subjects
from mass_jax.render.markdown import cell


def to_markdown(table: Mapping[str, Any], limits: Sequence[str]) -> str:
    """The table as Markdown, followed by its caveats.

    Args:
        table: from `make_table`.
        limits: texts of the caveats; see `applicable`.
    """
    columns = table["columns"]
    titles = [
        *columns,
        "unparsable",
        "generated tokens",
        "training tokens",
        "GFLOP",
        "seconds",
        "training samples",
        "training minutes",
    ]
    rows = [row for kind in ("methods", "references") for row in table[kind].values()]
    lines = [f"Accuracy in % with 95% intervals in brackets; {_seeds(table['seeds'])}.", ""]
    lines += [*_header(titles), *(_markdown_row(row, columns) for row in rows), *_cut_off_markdown(rows)]
    lines += ["", "Costs are per problem; FLOPs are estimated from token and weight counts. Training samples are the "
                  "examples and attempts that a training drew; its minutes include compilation."]  # fmt: skip
    lines += _paired_markdown(table)
    if table["subjects"]:
        lines += ["", *_by_subject_markdown(table)]
    if limits:
        lines += ["", "Limitations:", "", *(f"- {line}" for line in limits)]
    return "\n".join(lines) + "\n"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _header(titles: Sequence[str]) -> list[str]:
    return [f"| | {' | '.join(map(_cell, titles))} |", "|---|" + "---:|" * len(titles)]


def _cell(text: str) -> str:
    """A text from a data set as one cell of a Markdown table."""
    return cell(text) or "(none)"


def _markdown_row(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    cells = [_points(row["columns"][column]["accuracy"], row["columns"][column]["ci95"]) for column in columns]
    cost = row["cost"]
    cells.append(f"{100 * row['verdicts'].get('unparsable', 0):.0f}%")
    cells += [f"{cost['tokens_written_per_question']:.0f}", f"{cost['tokens_trained_per_question']:.0f}"]
    cells += [f"{cost['flops_per_question'] / 1e9:.3g}", f"{cost['seconds_per_question']:.3f}"]
    cells += _training_cells(row.get("training"))
    return f"| {row['label']} | {' | '.join(cells)} |"


def _training_cells(cost: Mapping[str, float] | None) -> list[str]:
    """Formats the cost of a training; 0 for rows that are not trained."""
    if cost is None:
        return ["0", "0"]
    samples = f"{cost['samples']:.0f}" if "samples" in cost else "unknown"
    return [samples, f"{cost['seconds'] / 60:.3g}" if "seconds" in cost else "unknown"]


def _cut_off_markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    counted = [row for row in rows if row["cut_off"]]
    parts = []
    for row in counted:
        counts = [f"{count} {name if count > 1 else name[:-1]}" for name, count in row["cut_off"].items() if count]
        parts += [f"{row['label']} {', '.join(counts)}"] if counts else []
    return ["", f"Truncated at the token limit: {'; '.join(parts) or 'none'}."] if counted else []


def _paired_markdown(table: Mapping[str, Any]) -> list[str]:
    columns = table["columns"]
    labels = {name: row["label"] for kind in ("methods", "references") for name, row in table[kind].items()}
    rows = []
    for pairs in zip(*(table["paired"][column] for column in columns), strict=True):
        cells = [f"{_points(p['difference'], p['ci95'], sign='+')}, p = {p['p']:.2g}" for p in pairs]
        rows.append(f"| {labels[pairs[0]['to']]} − {labels[pairs[0]['from']]} | {' | '.join(cells)} |")
    if not rows:
        return []
    caption = "Paired differences on the same problems, in points, with p of an exact test (McNemar's, by cluster):"
    return ["", caption, "", *_header(columns), *rows]


def _by_subject_markdown(table: Mapping[str, Any]) -> list[str]:
    details = table["subject_details"]
    subjects = sorted({subject for row in table["subjects"].values() for subject in row})
    counts = {
        subject: max(row[subject]["problems"] for row in details.values() if subject in row) for subject in subjects
    }
    lines = [f"Accuracy by subject in % with 95% intervals ({table['columns'][0]}; n problems):", ""]
    lines += _header([f"{subject or '(none)'} (n = {counts[subject]})" for subject in subjects])
    for name, row in table["subjects"].items():
        cells = [_points(row[s], details[name][s]["ci95"]) if s in row else "" for s in subjects]
        lines.append(f"| {table['methods'][name]['label']} | {' | '.join(cells)} |")
    if len(details) > 1 and (left_out := [subject for subject in subjects if subject not in drawn_subjects(table)]):
        lines += ["", f"Not in the figure, with fewer than {MIN_PER_SUBJECT} problems or without an interval: "
                      f"{', '.join(map(_cell, left_out))}."]  # fmt: skip
    return lines


def _points(mean: float, interval: Sequence[float] | None, sign: str = "") -> str:
    if interval is None:
        return f"{100 * mean:{sign}.1f}"
    low, high = (f"{100 * bound:{sign}.1f}" for bound in interval)
    return f"{100 * mean:{sign}.1f} [{low}, {high}]"
