"""A whole study: trains and evaluates every row for every seed in one workdir, then writes the report."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from mass_jax import evaluate, report, runtime, train, worked
from mass_jax.assemble import Parts, Problems
from mass_jax.config import Config
from mass_jax.report.table import TESTBED_LIMITS
from mass_jax.runtime.metrics import read_metrics

MASS_RUNS: dict[str, dict[str, Any]] = {
    "mass": {"outer": "verifier"},
    "mass_gold": {"outer": "gold"},
    "mass_shuffled": {"outer": "verifier", "control": "shuffled"},
    "mass_unrewarded": {"outer": "verifier", "control": "unrewarded"},
}
WORKED_PROBLEMS = 8


CONTROLS = ["mass_shuffled", "mass_unrewarded"]


def rows_of(config: Config) -> list[str]:
    """Rows to evaluate: the methods, then references that need no further training.

    >>> rows_of(Config(methods=("base", "mass")))
    ['base', 'mass', 'mass_unadapted', 'oracle']
    """
    rows = list(config.chosen_methods)
    return rows + [f"{name}_unadapted" for name in ("mass", "mass_gold") if name in rows] + ["oracle"]


def run_study(parts: Parts, workdir: pathlib.Path, stop: runtime.Stop) -> dict[str, Any]:
    """Runs what is not done yet and writes the report.

    Returns:
        The table, as in report/table1.json.
    """
    config = parts.config
    for rows in (rows_of(config), CONTROLS) if config.controls else (rows_of(config),):
        for seed in config.seeds:
            run_seed(parts, rows, seed, workdir / f"seed{seed}", stop)
    return write_report(config, workdir)


def run_seed(parts: Parts, rows: Sequence[str], seed: int, workdir: pathlib.Path, stop: runtime.Stop) -> None:
    """Trains and evaluates rows for one seed."""
    problems = parts.problems(seed)
    trained: dict[str | None, train.Trained] = {None: train.Trained(parts.pretrained(), None)}
    for name in rows:
        run = evaluate.ALL_ROWS[name].trained
        if run not in trained:
            trained[run] = train_run(parts, str(run), problems, seed, workdir / str(run), stop)
        path = workdir / "evaluation" / f"{name}.jsonl"
        evaluate.evaluate(parts, trained[run].weights, name, problems, seed=seed, path=path, stop=stop)
    path = workdir / "evaluation" / "worked.json"
    shown = next((name for name in MASS_RUNS if name in trained), None)
    if shown is None or path.exists():
        return
    stages = {"before": trained[None].weights, "after": trained[shown].weights}
    headline = next(iter(problems.columns.values()))
    found = worked.worked_examples(parts, stages, trained[shown].scorer, headline[:WORKED_PROBLEMS], seed)
    runtime.write_atomically(path, json.dumps(found))


def train_run(
    parts: Parts, run: str, problems: Problems, seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> train.Trained:
    """Trains one run, or takes it from its last checkpoint."""
    if run == "solver_grpo":
        weights = train.train_solver_grpo(parts, problems.train, seed=seed, workdir=workdir, stop=stop)
        return train.Trained(weights, None)
    return train.train_mass(parts, problems.train, seed=seed, workdir=workdir, stop=stop, **MASS_RUNS[run])


def write_report(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Rebuilds the report from the records in a workdir."""
    seeds = {seed: workdir / f"seed{seed}" for seed in config.seeds}
    records = {
        name: [r for path in seeds.values() for r in evaluate.read_records(path / "evaluation" / f"{name}.jsonl")]
        for name in rows_of(config) + (CONTROLS if config.controls else [])
    }
    runs = [run for run in MASS_RUNS if (next(iter(seeds.values())) / run).exists()]
    curves = {run: read_metrics(next(iter(seeds.values())) / run / "metrics.jsonl") for run in runs}
    worked_path = next(iter(seeds.values())) / "evaluation" / "worked.json"
    return report.write_report(
        workdir / "report",
        records=records,
        labels={name: row.label for name, row in evaluate.ALL_ROWS.items()},
        methods=config.chosen_methods,
        curves=curves,
        warmup=config.warmup_steps,
        worked=json.loads(worked_path.read_text(encoding="utf-8")) if worked_path.exists() else [],
        limits=TESTBED_LIMITS,
    )
