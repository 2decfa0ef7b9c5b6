"""Compares inner optimizers: signal before training, accuracy with correct examples, and MASS after training."""

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from matplotlib.figure import Figure

from mass_jax import metagrad as mg
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.evaluation import study
from mass_jax.metagrad import signal
from mass_jax.method import adapt
from mass_jax.method.rewards import make_reward
from mass_jax.render import plot
from mass_jax.runtime.metrics import read_metrics
from mass_jax.training import validation
from mass_jax.training.components import Components, assemble
from mass_jax.training.inner_setting import InnerSetting, with_setting

METHODS = ("base", "tt_ss", "mass")
PROBLEMS = 48  # training problems of each seed on which the signal is measured
_LEGEND = (
    "Accuracies in percent on the first column of the evaluation problems. Right: right examples, as many (the upper "
    "reference). Leave-one-out: Spearman correlation of the reward with leaving the example out, and zero-sum index, "
    "on training problems with the pretrained generator, gold outer loss, scores 1/2. Reward AUC: how well the reward "
    "ranks useful examples, over the steps of training; useful share: at the last step. Means over the seeds; the "
    "range over the seeds in parentheses."
)


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """One inner optimizer, measured for one or more seeds.

    Attributes:
        label: the setting.
        seeds: number of seeds.
        values: measured values by name, one per seed.
        findings: weaknesses of the signal at any seed.
    """

    label: str
    seeds: int
    values: dict[str, list[float]]
    findings: list[str]


def compare(
    config: Config,
    settings: Sequence[str],
    workdir: pathlib.Path,
    mesh: jax.sharding.Mesh,
    stop: runtime.Stop,
) -> list[ComparisonRow]:
    """Measures and trains every setting for every seed, and writes the comparison after each.

    Args:
        config: settings of the runs; those of the inner optimizer are replaced.
        settings: the inner optimizers, as OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]; missing values are those of `config`.
        workdir: directory of the runs; finished ones are kept.
        mesh: the devices.
        stop: polled between phases.

    Returns:
        The rows that were finished for at least one seed.

    Raises:
        UserError: a setting is invalid, or its directory has other settings.
    """
    rows: dict[str, ComparisonRow] = {}
    for seed in config.seeds:
        for text in settings:
            found = _run(dataclasses.replace(config, seeds=(seed,)), text, workdir, mesh, stop)
            rows[text] = _joined(rows.get(text), found)
            write(list(rows.values()), workdir)
    return list(rows.values())


def _run(
    config: Config, text: str, workdir: pathlib.Path, mesh: jax.sharding.Mesh, stop: runtime.Stop
) -> ComparisonRow:
    """Measures and trains one setting for one seed."""
    fixed: dict[str, Any] = {"methods": METHODS, "outer": "verifier", "on_weak_signal": "ignore"}
    usual_steps = config.inner_steps
    config = dataclasses.replace(with_setting(text, config), **fixed)
    directory = workdir / directory_name(config, usual_steps)
    kept = directory / "row.json"
    if kept.exists():
        runtime.check_workdir(directory, config.to_json())
        return ComparisonRow(**json.loads(kept.read_text(encoding="utf-8")))
    logging.info("%s, seed %d", text, config.seeds[0])
    with contextlib.closing(assemble(config, mesh)) as components:
        report = _signal(components)
        table = study.run_study(components, directory, stop, qualitative_examples=False)
        label = InnerSetting.of(config, components.rollouts.loop).label
    automatic = adapt.measures_eps_root(config.inner_optimizer, config.given_eps_root)
    metrics = read_metrics(directory / f"seed{config.seeds[0]}" / "mass" / "metrics.jsonl", config.steps)
    auc = [value for step in metrics if math.isfinite(value := step.get("reward_auc", math.nan))]
    column = table["columns"][0]
    accuracy = {name: 100 * entry["columns"][column]["accuracy"] for name, entry in _entries(table).items()}
    numbers: dict[str, Any] = {
        "leave_one_out": report["leave_one_out/spearman"],
        "zero_sum_index": report["zero_sum_index"],
        "right": accuracy.get("oracle", math.nan),
        "tt_ss": accuracy["tt_ss"],
        "mass": accuracy["mass"],
        "reward_auc": float(np.mean(auc)) if auc else math.nan,
        "useful_share": metrics[-1].get("useful_share", math.nan),
    }
    findings: list[str] = [finding.name for finding in mg.findings(report)]
    values: dict[str, list[float]] = {name: [value] for name, value in numbers.items()}
    row = ComparisonRow(f"{label} (auto)" if automatic else label, 1, values, findings)
    runtime.write_atomically(kept, json.dumps(dataclasses.asdict(row), indent=1) + "\n")
    return row


def directory_name(config: Config, usual_steps: int) -> str:
    """Returns the directory of one setting and seed in the workdir of a comparison.

    Args:
        config: settings of the run.
        usual_steps: number of inner steps of settings that do not name one.

    >>> directory_name(Config(inner_optimizer="adam", inner_lr=0.03, inner_steps=4, seeds=(7,)), usual_steps=2)
    'adam_0.03_auto_K4_seed7'
    """
    name = config.inner_optimizer
    if len(plain := _plain(name)) > 40 or plain != name:
        name = f"{plain[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    steps = "" if config.inner_steps == usual_steps else f"_K{config.inner_steps}"
    return f"{name}_{config.inner_lr:g}_{config.inner_eps_root}{steps}_seed{config.seeds[0]}"


def _plain(text: str) -> str:
    """Returns a text in which runs of characters that do not belong in file names are one hyphen."""
    words = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else " " for c in text).split()
    return "-".join(words)


def _entries(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the rows of a results table by name."""
    return {**table["methods"], **table["references"]}


def _signal(components: Components) -> mg.SignalReport:
    """Measures the signal of the run's setting on training problems, with the pretrained generator."""
    config, rollouts = components.config, components.rollouts
    problems = components.problems(config.seeds[0]).train[:PROBLEMS]
    key = jax.random.fold_in(jax.random.key(config.seeds[0]), 5)
    drawn = validation.draw(
        rollouts, components.pretrained(), problems, num_examples=config.num_examples, key=key, score=0.5
    )
    setting = InnerSetting.of(config, rollouts.loop)
    options = signal.Options(finite_differences=False, add_one=False, directions=0, precision=False)
    reward = make_reward(config.reward, config.path_points)
    return validation.validate_setting(
        rollouts, components.pretrained(), drawn, setting, "gold", config.num_attempts, options, reward=reward
    )


def _joined(first: ComparisonRow | None, second: ComparisonRow) -> ComparisonRow:
    """Joins the seeds of two rows."""
    if first is None:
        return second
    values = {name: first.values[name] + second.values[name] for name in second.values}
    return ComparisonRow(first.label, first.seeds + second.seeds, values, sorted({*first.findings, *second.findings}))


def write(rows: Sequence[ComparisonRow], workdir: pathlib.Path) -> None:
    """Writes inner_optimizers.json, .md, .png and .svg."""
    workdir.mkdir(parents=True, exist_ok=True)
    content = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
    runtime.write_atomically(workdir / "inner_optimizers.json", content + "\n")
    runtime.write_atomically(workdir / "inner_optimizers.md", table_of(rows))
    figure(rows, workdir / "inner_optimizers.png")


def table_of(rows: Sequence[ComparisonRow]) -> str:
    """Formats the comparison as Markdown.

    >>> row = ComparisonRow("sgd 0.2, K=2", 1, {"leave_one_out": [0.97], "zero_sum_index": [0.4], "right": [94.0],
    ...           "tt_ss": [48.0], "mass": [93.0], "reward_auc": [0.7], "useful_share": [0.9]}, [])
    >>> print(table_of([row]).splitlines()[-1])
    | sgd 0.2, K=2 | 1 | 0.97 | 0.40 | 94.0 | 48.0 | 93.0 | 0.70 | 0.90 | none |
    """
    lines = [
        _LEGEND,
        "",
        "| inner optimizer | seeds | leave-one-out | zero-sum index | right | TT-SS | MASS | reward AUC | useful share "
        "| findings |",
        "|---|" + "---:|" * 8 + "---|",
    ]
    for row in rows:
        cells = [_cell(values, 1 if name in ("right", "tt_ss", "mass") else 2) for name, values in row.values.items()]
        lines.append(" | ".join([f"| {row.label}", str(row.seeds), *cells, ", ".join(row.findings) or "none"]) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float], digits: int) -> str:
    """Formats the mean, and the range of several seeds."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def figure(rows: Sequence[ComparisonRow], path: pathlib.Path) -> Figure:
    """Plots accuracy after MASS against the correlation of the reward with leave-one-out, one point per setting."""
    with plot.figure(path, 2.6) as drawn:
        axes = drawn.subplots()
        for number, row in enumerate(rows):
            x, y = (np.mean(row.values[name]) for name in ("leave_one_out", "mass"))
            axes.plot(x, y, label=row.label, **plot.look(number, ""))
        axes.set_xlabel("correlation with leave-one-out")  # a longer one does not fit beside the legend
        axes.set_ylabel("accuracy after MASS (%)")
        axes.grid(True)
        drawn.legend(loc="outside right upper", fontsize="x-small")
    return drawn
