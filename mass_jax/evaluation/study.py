"""Runs a study: trains and evaluates every row for every seed in one workdir, and writes the report."""

import contextlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import optax
from absl import logging

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import evaluate, qualitative, report
from mass_jax.evaluation.lengths import check_lengths
from mass_jax.evaluation.order import ordered, records_path, unfinished
from mass_jax.evaluation.records import read_records
from mass_jax.evaluation.report.table import limits_of, training_cost
from mass_jax.evaluation.tracked_report import track_report
from mass_jax.rows import CONTROLS, ROWS, TRAINING_RUNS
from mass_jax.runtime import console, jsonl
from mass_jax.runtime.metrics import read_metrics
from mass_jax.runtime.trackers import check_installed
from mass_jax.training import train
from mass_jax.training.components import Components, assemble, with_stored_eps_root
from mass_jax.training.programs import compiling_ahead
from mass_jax.training.runs import train_run

WORKED_PROBLEMS = 8
MAY_DIFFER = ("methods",)  # settings in which an evaluation may differ from its workdir
_MASS_RUNS = [name for name, run in TRAINING_RUNS.items() if run.outer is not None]


def rows_of(config: Config) -> list[str]:
    """Returns the rows to evaluate: the methods, then the references that need no further training.

    >>> rows_of(Config(methods=("base", "mass")))
    ['base', 'mass', 'mass_unadapted', 'oracle']
    """
    methods = list(config.chosen_methods)
    return methods + [name for name, row in ROWS.items() if row.role == "reference" and row.run in (None, *methods)]


def run(
    config: Config,
    workdir: str | pathlib.Path,
    *,
    inner_optimizer: optax.GradientTransformation | None = None,
    log: bool = True,
) -> dict[str, Any]:
    """Runs a study from Python on one device: loads the model and the task, trains, evaluates, and reports.

    Args:
        config: the settings; those of a preset are `experiments.presets.NAME.config()`.
        workdir: directory of the run, or a URL of a bucket; give it again to resume.
        inner_optimizer: optimizer of the inner loop, instead of `config.inner_optimizer`.
        log: whether to log progress to stderr, as the commands do.

    Returns:
        The table, as in report/table1.json.

    Raises:
        UserError: as for `run_study`, or the meta-gradient through the inner optimizer would be unusable.
    """
    if log:
        console.log_to_stderr()
    stop = runtime.Stop()
    with contextlib.ExitStack() as held:
        local = held.enter_context(runtime.open_workdir(str(workdir), stop=stop))
        components = held.enter_context(contextlib.closing(assemble(config, inner_optimizer=inner_optimizer)))
        return run_study(components, local, stop)


def run_study(
    components: Components,
    workdir: pathlib.Path,
    stop: runtime.Stop,
    compile_threads: int = 0,
    qualitative_examples: bool = True,
) -> dict[str, Any]:
    """Trains and evaluates the rows that are not finished, and writes the report.

    The workdir is locked meanwhile. Settings are written to it once every prompt is known to fit.

    Args:
        components: the components of the run.
        workdir: directory of the run.
        stop: polled between phases.
        compile_threads: number of programs to compile at once, ahead of time; 0 compiles each when it is called.
        qualitative_examples: whether to write worked problems, whose programs no other row shares.

    Returns:
        The table, as in report/table1.json; empty on processes other than the first.

    Raises:
        UserError: the workdir is in use or has other settings, or a prompt does not fit.
        runtime.Interrupted: a stop was requested; finished work is saved.
    """
    config = components.config
    check_installed(config.trackers)
    groups = (rows_of(config), list(CONTROLS)) if config.controls else (rows_of(config),)
    with runtime.lock_workdir(workdir, stop):
        runtime.check_workdir(workdir, config.to_json(), replace=True)
        for seed in config.seeds:
            check_lengths(components, [name for rows in groups for name in rows], seed)
        runtime.claim_workdir(workdir, config.to_json(), replace=True)
        components = with_stored_eps_root(components, workdir)
        todo = unfinished(config, [name for rows in groups for name in ordered(rows)], workdir)
        with compiling_ahead(components, todo, compile_threads):
            for rows in groups:
                for seed in config.seeds:
                    trained = evaluate_rows(components, rows, seed, workdir / f"seed{seed}", stop)
                    if qualitative_examples:
                        write_worked(components, trained, seed, workdir / f"seed{seed}")
        return write_report(config, workdir) if runtime.is_first() else {}


def run_evaluation(components: Components, workdir: pathlib.Path, stop: runtime.Stop) -> None:
    """Evaluates the rows whose training is finished, without training; warns of the rows that are left out.

    The workdir is locked meanwhile. Its settings may differ in the methods.

    Args:
        components: the components of the run.
        workdir: directory of the run.
        stop: polled between batches.

    Raises:
        UserError: the workdir is in use or has other settings, or a prompt does not fit.
        runtime.Interrupted: a stop was requested; finished batches are saved.
    """
    config = components.config
    check_installed(config.trackers)
    rows = rows_of(config) + (list(CONTROLS) if config.controls else [])
    with runtime.lock_workdir(workdir, stop):
        runtime.check_workdir(workdir, config.to_json(), MAY_DIFFER, replace=True)
        ready = {
            seed: [name for name in rows if is_trained(config, name, workdir / f"seed{seed}")] for seed in config.seeds
        }
        for seed in config.seeds:
            check_lengths(components, ready[seed], seed, training=False)
        runtime.claim_workdir(workdir, config.to_json(), MAY_DIFFER, replace=True)
        components = with_stored_eps_root(components, workdir)
        for seed in config.seeds:
            if left_out := [name for name in rows if name not in ready[seed]]:
                logging.warning("seed %d: not trained, so left out: %s", seed, ", ".join(left_out))
            evaluate_rows(components, ready[seed], seed, workdir / f"seed{seed}", stop)


def is_trained(config: Config, name: str, workdir: pathlib.Path) -> bool:
    """Returns whether the training run of a row is finished; True for rows of the pretrained model."""
    run = ROWS[name].run
    return run is None or (workdir / run / "checkpoints" / str(config.steps)).is_dir()


def write_worked(
    components: Components, trained: dict[str | None, train.Trained], seed: int, workdir: pathlib.Path
) -> None:
    """Writes qualitative examples of the first trained run of MASS, unless they exist."""
    path = workdir / "evaluation" / "worked.json"
    shown = next((name for name in _MASS_RUNS if name in trained), None)
    if shown is None or runtime.agreed_maximum(runtime.is_first() and path.exists()):
        return
    stages = {"before": trained[None].weights, "after": trained[shown].weights}
    headline = next(iter(components.problems(seed).columns.values()))
    everywhere, scorer = components.on_every_process(), trained[shown].scorer
    examples = qualitative.worked_examples(everywhere, stages, scorer, headline[:WORKED_PROBLEMS], seed)
    if runtime.is_first():
        runtime.write_atomically(path, json.dumps(examples))


def evaluate_rows(
    components: Components, rows: Sequence[str], seed: int, workdir: pathlib.Path, stop: runtime.Stop
) -> dict[str | None, train.Trained]:
    """Evaluates rows for one seed, those without training first, and trains the runs that are not finished.

    Args:
        components: the components of the run.
        rows: keys of `mass_jax.rows.ROWS`.
        seed: random seed.
        workdir: directory of the seed.
        stop: polled between phases.

    Returns:
        The trained weights by training run; None is the pretrained model.
    """
    problems, rollouts = components.problems(seed), components.rollouts.on_every_process()
    trained: dict[str | None, train.Trained] = {None: train.Trained(components.pretrained(), None)}
    for name in ordered(rows):
        if name == "oracle" and problems.oracle is None:
            continue
        run = ROWS[name].run
        if run not in trained:
            trained[run] = train_run(components, str(run), problems, seed, workdir / str(run), stop)
        votes = _votes(workdir) if ROWS[name].is_sampled else 1
        job = evaluate.Job(components.config, rollouts, trained[run].weights, name, problems, seed, votes)
        evaluate.evaluate(job, records_path(workdir, name), stop)
    return trained


def _votes(workdir: pathlib.Path) -> int:
    """Returns the number of votes, computed from the records of the rows that were evaluated before."""
    votes = 0
    if runtime.is_first():
        votes = evaluate.votes_at_equal_compute(*(read_records(records_path(workdir, n)) for n in ("base", "tt_ss")))
    return runtime.agreed_maximum(votes)


def write_report(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Builds the report from the records in a workdir; rows that are not evaluated on every column are left out.

    Args:
        config: the settings.
        workdir: directory of the run.

    Returns:
        The table, as in report/table1.json.

    Raises:
        UserError: no row has records, or the workdir has other settings.
    """
    if (workdir / "config.json").exists():
        runtime.check_workdir(workdir, config.to_json(), MAY_DIFFER)
    seeds = {seed: workdir / f"seed{seed}" for seed in config.seeds}
    records = {
        name: [r for path in seeds.values() for r in read_records(records_path(path, name))]
        for name in rows_of(config) + (list(CONTROLS) if config.controls else [])
    }
    records = _on_every_column(records)
    if not records:
        raise UserError(f"{workdir} holds no records of an evaluation; run it without --report_only first")
    runs = [run for run in _MASS_RUNS if (next(iter(seeds.values())) / run).exists()]
    curves = {run: _curve(config, next(iter(seeds.values())) / run) for run in runs}
    worked = _worked(next(iter(seeds.values())) / "evaluation" / "worked.json")
    table = report.write_report(
        workdir / "report",
        records=records,
        labels={name: row.label for name, row in ROWS.items()},
        methods=[name for name in config.chosen_methods if name in records],
        controls=list(CONTROLS),
        training={name: _training(config, name, list(seeds.values())) for name in records},
        curves=curves,
        warmup=config.warmup_steps,
        worked=worked,
        limits=limits_of(config.task),
    )
    track_report(config, workdir, table, worked)
    return table


def _on_every_column(records: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows with records on every column that any row has; warns of rows that are partly evaluated."""
    columns = {record["column"]: None for rows in records.values() for record in rows}
    complete = {}
    for name, rows in records.items():
        missing = [column for column in columns if not any(record["column"] == column for record in rows)]
        if rows and missing:
            logging.warning("row %s has no records of column %s and is left out of the report", name, missing[0])
        elif rows:
            complete[name] = rows
    return complete


def _curve(config: Config, run: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the metrics of a run; a finished run must have every step."""
    finished = (run / "checkpoints" / str(config.steps)).is_dir()
    return read_metrics(run / "metrics.jsonl", config.steps if finished else 0)


def _training(config: Config, name: str, seeds: Sequence[pathlib.Path]) -> dict[str, float] | None:
    """Returns the cost of a row's training; None for rows of the pretrained model."""
    run = ROWS[name].run
    return None if run is None else training_cost([_curve(config, path / run) for path in seeds])


def _worked(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the qualitative examples; none, with a warning, if the file is damaged."""
    if not path.exists():
        return []
    try:
        examples = jsonl.loads(path.read_bytes())
        if not isinstance(examples, list):
            raise jsonl.BadJson(f"{jsonl.kind(examples)} instead of an array")
    except jsonl.BadJson as error:
        logging.warning("%s: %s; the report omits qualitative examples; delete the file to rewrite it", path, error)
        return []
    return examples
