"""Redraws the figures of finished results from their JSON files; measures nothing.

    python -m experiments.tools.redraw --dir=docs/results

Reads every table1.json, plan.json, metagrad.json and sampling.json below the directory, and rewrites the existing
figures next to each as PNG and SVG. Training curves need the metrics of the run: use
`python -m experiments.evaluate --report_only`. Figures of several plans: use `python -m experiments.plan --join`.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags, logging

from experiments import bench_metagrad, settings
from experiments.benchmarks import sampling_report
from experiments.path_flags import DEFINE_path
from mass_jax.errors import UserError
from mass_jax.evaluation.report import figures
from mass_jax.planning import plan_page
from mass_jax.rows import CONTROLS

FLAGS = flags.FLAGS
Draw = Callable[[dict[str, Any], pathlib.Path], Any]
FIGURES: dict[str, tuple[tuple[str, Draw], ...]] = {  # JSON file -> names and drawing functions of its figures
    "table1.json": (
        ("accuracy", lambda table, path: figures.accuracy({"controls": list(CONTROLS)} | table, path)),
        ("gain_by_subject", figures.gain_by_subject),
    ),
    "plan.json": (("plan", lambda plan, path: plan_page.figure(plan, plan["rows"], path)),),
    "metagrad.json": (("metagrad", lambda found, path: bench_metagrad.figure(found["rows"], path)),),
    "sampling.json": (("sampling", sampling_report.draw),),
}


def redraw(directory: pathlib.Path) -> list[pathlib.Path]:
    """Redraws every existing figure below a directory whose JSON file has the data.

    Returns:
        The PNG files written.
    """
    written = []
    for name, figures_of in FIGURES.items():
        for source in sorted(directory.rglob(name)):
            for stem, draw in figures_of:
                path = source.with_name(f"{stem}.png")
                try:
                    drawn = path.exists() and draw(json.loads(source.read_text(encoding="utf-8")), path)
                except (KeyError, ValueError) as error:
                    logging.warning("%s: not redrawn; %s lacks %s", path, name, error)
                    continue
                if drawn:
                    written.append(path)
    return written


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(lambda stop: run())


def run() -> None:
    """Redraws the figures below --dir."""
    directory = pathlib.Path(FLAGS.dir)
    if not directory.is_dir():
        raise UserError(f"--dir={FLAGS.dir} is not a directory; give one with results, like docs/results")
    for path in redraw(directory):
        print(f"wrote {path} and {path.with_suffix('.svg').name}")


if __name__ == "__main__":
    DEFINE_path("dir", "docs/results", "Directory of results, searched recursively.")
    settings.run(main)
