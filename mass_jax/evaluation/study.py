"""A whole study: trains and evaluates every row for every seed in one workdir, then writes the report."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import evaluate, qualitative, report
from mass_jax.evaluation.records import read_records
from mass_jax.evaluation.report.table import LIMITS
from mass_jax.runtime import jsonl
from mass_jax.runtime.metrics import read_metrics
from mass_jax.tasks.base import Problems
from mass_jax.training import train
from mass_jax.training.components import Parts

MASS_RUNS: dict[str, dict[str, Any]] = {
    "mass": {"outer": "verifier"},
    "mass_gold": {"outer": "gold"},
    "mass_shuffled": {"outer": "verifier", "control": "shuffled"},
    "mass_unrewarded": {"outer": "verifier", "control": "unrewarded"},
}
WORKED_PROBLEMS = 8


CONTROLS = ["mass_shuffled", "mass_unrewarded"]
MAY_DIFFER = ("methods",)  # settings of which an evaluation may have others than its workdir


def rows_of(config: Config) -> list[str]:
    """Rows to evaluate: the methods, then references that need no further training.

    >>> rows_of(Config(methods=("base", "mass")))
    ['base', 'mass', 'mass_unadapted', 'oracle']
    """
    rows = list(config.chosen_methods)
    return rows + [f"{name}_unadapted" for name in ("mass", "mass_gold") if name in rows] + ["oracle"]


def run_study(parts: Parts, workdir: pathlib.Path, stop: runtime.Stop) -> dict[str, Any]:
    """Trains and evaluates what is not done yet, and writes the report.

    The workdir is held for this run, and gets the settings once every prompt is known to fit them.

    Returns:
        The table, as in report/table1.json.

    Raises:
        UserError: the workdir is in use or of other settings, or a prompt does not fit.
    """
    config = parts.config
    every = (rows_of(config), CONTROLS) if config.controls else (rows_of(config),)
    with runtime.lock_workdir(workdir, stop):
        runtime.check_workdir(workdir, config.to_json(), replace=True)
        for seed in config.seeds:
            check_lengths(parts, [name for rows in every for name in rows], seed)
        runtime.claim_workdir(workdir, config.to_json(), replace=True)
        for rows in every:
            for seed in config.seeds:
                run_seed(parts, rows, seed, workdir / f"seed{seed}", stop)
        return write_report(config, workdir) if runtime.is_first() else {}


def run_evaluation(parts: Parts, workdir: pathlib.Path, stop: runtime.Stop) -> None:
    """Evaluates the rows whose training is finished, and trains nothing; names the rows that are left out.

    The workdir is held for this run. Its settings may differ in the methods.

    Raises:
        UserError: the workdir is in use or of other settings, or a prompt does not fit.
    """
    config = parts.config
    rows = rows_of(config) + (CONTROLS if config.controls else [])
    with runtime.lock_workdir(workdir, stop):
        runtime.check_workdir(workdir, config.to_json(), MAY_DIFFER, replace=True)
        ready = {
            seed: [name for name in rows if is_trained(config, name, workdir / f"seed{seed}")] for seed in config.seeds
        }
        for seed in config.seeds:
            check_lengths(parts, ready[seed], seed, training=False)
        runtime.claim_workdir(workdir, config.to_json(), MAY_DIFFER, replace=True)
        for seed in config.seeds:
            if left_out := [name for name in rows if name not in ready[seed]]:
                logging.warning("seed %d: not trained, so left out: %s", seed, ", ".join(left_out))
            evaluate_rows(parts, ready[seed], seed, workdir / f"seed{seed}", stop)


def check_lengths(parts: Parts, rows: Sequence[str], seed: int, training: bool = True) -> None:
    """Encodes every prompt that rows of one seed will need, so that one that is too long stops the run at its start.

    Args:
        parts: model and settings.
        rows: keys of `evaluate.ALL_ROWS`.
        seed: of the problems and of their order in training.
        training: whether the rows will also be trained.

    Raises:
        TooLong: a prompt or a gold solution does not fit; names the setting and the value to raise it to.
    """
    problems, dialogue, config = parts.problems(seed), parts.dialogue, parts.config
    chosen = [evaluate.ALL_ROWS[name] for name in rows]
    asked = [problem for column in problems.columns.values() for problem in column]
    if any(row.answers != "few_shot" for row in chosen):
        dialogue.solver_prompts(asked)
    if any(row.practice == "self" for row in chosen):
        dialogue.generator_prompts(asked)
    runs = {row.trained for row in chosen if row.trained is not None} if training else set()
    if not runs:
        return
    draws = train.task_order(len(problems.train), config.tasks_per_step, seed)
    numbers = sorted({number for step in range(config.steps) for number in draws(step)})
    drawn = [problems.train[number] for number in numbers]
    outers = {MASS_RUNS[run]["outer"] for run in runs if run in MASS_RUNS}
    if outers:
        dialogue.generator_prompts(drawn)
    if "gold" in outers:
        dialogue.gold(drawn)
    if "verifier" in outers or "solver_grpo" in runs:
        dialogue.solver_prompts(drawn)


def is_trained(config: Config, name: str, workdir: pathlib.Path) -> bool:
    """Whether the run that a row needs has all its steps, or it needs none."""
    run = evaluate.ALL_ROWS[name].trained
    return run is None or (workdir / run / "checkpoints" / str(config.steps)).is_dir()


def run_seed(parts: Parts, rows: Sequence[str], seed: int, workdir: pathlib.Path, stop: runtime.Stop) -> None:
    """Trains and evaluates rows for one seed, and writes worked examples."""
    trained = evaluate_rows(parts, rows, seed, workdir, stop)
    path = workdir / "evaluation" / "worked.json"
    shown = next((name for name in MASS_RUNS if name in trained), None)
    if shown is None or runtime.agreed_maximum(runtime.is_first() and path.exists()):
        return
    stages = {"before": trained[None].weights, "after": trained[shown].weights}
    headline = next(iter(parts.problems(seed).columns.values()))
    everywhere, scorer = parts.on_every_process(), trained[shown].scorer
    found = qualitative.worked_examples(everywhere, stages, scorer, headline[:WORKED_PROBLEMS], seed)
    if runtime.is_first():
        runtime.write_atomically(path, json.dumps(found))


def evaluate_rows(
    parts: Parts, rows: Sequence[str], seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> dict[str | None, train.Trained]:
    """Evaluates rows of one seed, those that need no training first; trains what is not trained.

    Returns:
        What the rows used, by training run; None is the pretrained model.
    """
    problems = parts.problems(seed)
    trained: dict[str | None, train.Trained] = {None: train.Trained(parts.pretrained(), None)}
    for name in sorted(rows, key=lambda name: (evaluate.ALL_ROWS[name].trained is not None, name == "majority")):
        if name == "oracle" and problems.oracle is None:
            continue
        run = evaluate.ALL_ROWS[name].trained
        if run not in trained:
            trained[run] = train_run(parts, str(run), problems, seed, workdir / str(run), stop)
        votes = _votes(workdir) if name == "majority" else 1
        job = evaluate.Job(parts.on_every_process(), trained[run].weights, name, problems, seed, votes)
        evaluate.evaluate(job, records_path(workdir, name), stop)
    return trained


def records_path(workdir: pathlib.Path, name: str) -> pathlib.Path:
    """Where the records of a row stand in the directory of a seed."""
    return workdir / "evaluation" / f"{name}.jsonl"


def _votes(workdir: pathlib.Path) -> int:
    """Votes of the majority, from what the rows before it wrote."""
    found = 0
    if runtime.is_first():
        found = evaluate.votes_at_equal_compute(*(read_records(records_path(workdir, n)) for n in ("base", "tt_ss")))
    return runtime.agreed_maximum(found)


def train_run(
    parts: Parts, run: str, problems: Problems, seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> train.Trained:
    """Trains one run, or takes it from its last checkpoint."""
    if run == "solver_grpo":
        weights = train.train_solver_grpo(parts, problems.train, seed=seed, workdir=workdir, stop=stop)
        return train.Trained(weights, None)
    return train.train_mass(parts, problems.train, seed=seed, workdir=workdir, stop=stop, **MASS_RUNS[run])


def write_report(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Rebuilds the report from the records in a workdir; a row that is not evaluated on every column is left out.

    Raises:
        UserError: no row has records, or the workdir has other settings.
    """
    if (workdir / "config.json").exists():
        runtime.check_workdir(workdir, config.to_json(), MAY_DIFFER)
    seeds = {seed: workdir / f"seed{seed}" for seed in config.seeds}
    records = {
        name: [r for path in seeds.values() for r in read_records(records_path(path, name))]
        for name in rows_of(config) + (CONTROLS if config.controls else [])
    }
    records = _on_every_column(records)
    if not records:
        raise UserError(f"{workdir} holds no records of an evaluation; run it without --report_only first")
    runs = [run for run in MASS_RUNS if (next(iter(seeds.values())) / run).exists()]
    curves = {run: _curve(config, next(iter(seeds.values())) / run) for run in runs}
    return report.write_report(
        workdir / "report",
        records=records,
        labels={name: row.label for name, row in evaluate.ALL_ROWS.items()},
        methods=[name for name in config.chosen_methods if name in records],
        controls=CONTROLS,
        curves=curves,
        warmup=config.warmup_steps,
        worked=_worked(next(iter(seeds.values())) / "evaluation" / "worked.json"),
        limits=LIMITS.get(config.task, ()),
    )


def _on_every_column(records: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows with records on every column that any row has; warns of rows that are partly evaluated."""
    columns = {record["column"]: None for rows in records.values() for record in rows}
    found = {}
    for name, rows in records.items():
        missing = [column for column in columns if not any(record["column"] == column for record in rows)]
        if rows and missing:
            logging.warning("row %s has no records of column %s and is left out of the report", name, missing[0])
        elif rows:
            found[name] = rows
    return found


def _curve(config: Config, run: pathlib.Path) -> list[dict[str, Any]]:
    """Metrics of a run; of a finished one they should have every step."""
    finished = (run / "checkpoints" / str(config.steps)).is_dir()
    return read_metrics(run / "metrics.jsonl", config.steps if finished else 0)


def _worked(path: pathlib.Path) -> list[dict[str, Any]]:
    """The worked examples; none, with a warning, if the file is damaged."""
    if not path.exists():
        return []
    try:
        found = jsonl.loads(path.read_bytes())
        if not isinstance(found, list):
            raise jsonl.BadJson(f"{jsonl.kind(found)} in place of an array")
    except jsonl.BadJson as error:
        logging.warning("%s: %s; the report has no worked examples; remove the file to write them again", path, error)
        return []
    return found
