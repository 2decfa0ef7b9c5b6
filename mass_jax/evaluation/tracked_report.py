"""The report in trackers: the results table, the figures, and the worked examples as text."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.config import Config
from mass_jax.runtime.trackers import open_trackers


def track_report(
    config: Config, workdir: pathlib.Path, table: Mapping[str, Any], worked: Sequence[Mapping[str, Any]]
) -> None:
    """Logs a report to the trackers of `config`, as a run of its own.

    Args:
        config: the settings.
        workdir: directory of the run, which contains report/.
        table: from `report.write_report`.
        worked: from `qualitative.worked_examples`; may be empty.
    """
    if not config.trackers:
        return
    out = workdir / "report"
    with open_trackers(config.trackers, out, workdir, dataclasses.asdict(config)) as trackers:
        trackers.table("results", results(table))
        for figure in sorted(out.glob("*.png")):
            trackers.figure(figure.stem, figure)
        for example in worked:
            trackers.text(f"examples/{example['id']}", as_text(example))


def results(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the accuracy of each row on each column of the problems, with its interval.

    Args:
        table: from `report.write_report`.

    >>> column = {"accuracy": 0.5, "ci95": [0.25, 0.75], "problems": 10}
    >>> results({"methods": {"base": {"label": "Base", "columns": {"unseen": column}}}, "references": {}})
    [{'row': 'Base', 'column': 'unseen', 'accuracy': 0.5, 'low': 0.25, 'high': 0.75, 'problems': 10}]
    """
    rows = [*table["methods"].values(), *table["references"].values()]
    return [
        {"row": row["label"], "column": name, "accuracy": column["accuracy"]}
        | {"low": column["ci95"][0], "high": column["ci95"][1], "problems": column["problems"]}
        for row in rows
        for name, column in row["columns"].items()
    ]


def as_text(example: Mapping[str, Any]) -> str:
    """Returns a worked example as plain text: the problem, and the examples and answers of every stage.

    Args:
        example: from `qualitative.worked_examples`.
    """
    lines = [f"Problem: {example['problem']}", f"Correct answer: {example['answer']}"]
    for stage, found in example["stages"].items():
        lines += ["", f"{stage.capitalize()} training"]
        for entry in found["examples"]:
            if "rejected" in entry:
                note = f"rejected: {entry['rejected']}"
            else:
                note = f"score {entry['score']:.3g}, reward {entry['reward']:.3g}"
            lines += [f"Example ({note}):", entry["text"]]
        lines += ["Answer without adaptation:", found["unadapted"], "Answer with adaptation:", found["adapted"]]
    return "\n".join(lines)
