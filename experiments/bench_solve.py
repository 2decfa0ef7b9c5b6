"""Benchmarks test-time adaptation: accuracy and cost with and without adaptation and gates, and batching.

    python -m experiments.bench_solve --workdir=runs/tiny3 --out=docs/results/audit

Writes cost.json and cost.md, in about ten minutes on 2 cores of an Intel Xeon at 2.50 GHz. The workdir comes from
`python -m experiments.train --preset=tiny --seeds=0,1,2 --controls --workdir=runs/tiny3`; every seed is measured.
"""

import functools
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import settings
from experiments.benchmarks.partial import Parts
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.serving import loading
from mass_jax.serving.guards.policy import Policy
from mass_jax.tasks.base import Problem, Verdict

FLAGS = flags.FLAGS
REPEATS = 7
# Row of the table -> policy; None answers without adaptation.
ROWS: dict[str, Policy | None] = {
    "plain": None,
    "adapted, no gates": Policy(gates={}),
    "adapted, gates": Policy(),
    "adapted, gates, a third of the examples real": Policy(real_share=1 / 3),
}


def open_service(policy: Policy | None, scratch: str, seed: int) -> loading.AdaptationService:
    """Loads the service of one row, with a new log."""
    log = pathlib.Path(tempfile.mkdtemp(dir=scratch)) / "events.jsonl"
    return loading.load(FLAGS.workdir, train_seed=seed, policy_file=policy, log=log, adapt=policy is not None)


def measure_row(policy: Policy | None, seeds: Sequence[int], scratch: str) -> dict[str, Any]:
    """Measures accuracy and mean cost per question on the first evaluation set of every seed, after a warm-up batch."""
    right, found = [], []
    for seed in seeds:
        with open_service(policy, scratch, seed) as service:
            column = next(iter(service.problems(seed).columns.values()))
            service(column[: service.batch])
            questions = [Problem(f"{seed} {p.id}", p.problem, "", "") for p in column]
            answers = service(questions)
            verdicts = service.task.verify(column, [answer.text or "" for answer in answers])
            right += [verdict is Verdict.RIGHT for verdict in verdicts]
            found += answers
    return {
        "questions": len(found),
        "accuracy": float(np.mean(right)),
        "tokens": float(np.mean([sum(answer.tokens.values()) for answer in found])),
        "tokens_by_phase": {p: float(np.mean([a.tokens.get(p, 0) for a in found])) for p in found[0].tokens},
        "mflop": float(np.mean([answer.flops for answer in found])) / 1e6,
        "seconds": float(np.mean([sum(answer.seconds.values()) for answer in found])),
        "decisions": {d: sum(a.decision == d for a in found) for d in sorted({a.decision for a in found})},
    }


def measure_batching(scratch: str, seed: int, count: int = 16) -> dict[str, Any]:
    """Measures median seconds of `count` questions in one batch and one by one, alternating."""
    with open_service(Policy(), scratch, seed) as service:
        asked = [p.problem for p in next(iter(service.problems(seed).columns.values()))[:count]]
        times: dict[str, list[float]] = {"together": [], "one_by_one": []}
        for i in range(REPEATS + 1):
            began = time.perf_counter()
            service(asked)
            middle = time.perf_counter()
            for problem in asked:
                service([problem])
            if i:  # the first compiles
                times["together"].append(middle - began)
                times["one_by_one"].append(time.perf_counter() - middle)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"questions": count, "repeats": REPEATS, **medians, "share": medians["together"] / medians["one_by_one"]}


def to_markdown(results: dict[str, Any]) -> str:
    """Formats the results as a Markdown table."""
    lines = ["| | accuracy, % | tokens | MFLOP | seconds |", "|---|---:|---:|---:|---:|"]
    for name, row in results["rows"].items():
        cells = (100 * row["accuracy"], row["tokens"], row["mflop"], row["seconds"])
        lines.append(f"| {name} | {cells[0]:.1f} | {cells[1]:.0f} | {cells[2]:.0f} | {cells[3]:.4f} |")
    batching = results["batching"]
    lines.append("")
    lines.append(
        f"Per question, in batches of 16. {batching['questions']} questions take {batching['together']:.2f} s in one "
        f"batch and {batching['one_by_one']:.2f} s one by one, a ratio of {batching['share']:.2f} "
        f"(medians of {batching['repeats']} alternating runs)."
    )
    return "\n".join(lines) + "\n"


def main(_: Sequence[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(stop: runtime.Stop) -> None:
    """Measures all rows; OUT/cost.partial.json keeps finished parts until the end."""
    if FLAGS.workdir is None:
        raise UserError("--workdir is missing; give a run of experiments.train")
    workdir, out = pathlib.Path(FLAGS.workdir), pathlib.Path(FLAGS.out)
    try:
        run = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        seeds = run["seeds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--workdir={workdir} is not a run of experiments.train ({error!r})") from None
    parts = Parts(out / "cost.partial.json", {"workdir": str(workdir.resolve()), "settings": run}, stop)
    with tempfile.TemporaryDirectory() as scratch:
        batching = parts.of("batching", lambda: measure_batching(scratch, seeds[0]))
        rows = {
            name: parts.of(f"row: {name}", functools.partial(measure_row, policy, seeds, scratch))
            for name, policy in ROWS.items()
        }
    results = {"rows": rows, "batching": batching}
    runtime.write_atomically(out / "cost.json", json.dumps(results, indent=1) + "\n")
    runtime.write_atomically(out / "cost.md", to_markdown(results))
    parts.finish()
    print(to_markdown(results))


def define() -> None:
    """Defines the flags of this command."""
    DEFINE_path("workdir", None, "Directory of a run of experiments.train.")
    DEFINE_path("out", "docs/results/audit", "Directory of the results; rerun with the same directory to resume.")


if __name__ == "__main__":
    define()
    settings.run(main)
