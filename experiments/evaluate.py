"""Evaluates the trained methods of a work directory, or untrained methods in a fresh one, and writes the report.

    python -m experiments.evaluate --workdir=runs/tiny
    python -m experiments.evaluate --preset=tiny --methods=base,ttt,tt_ss --workdir=runs/untrained
    python -m experiments.evaluate --workdir=runs/tiny --report_only

An existing run keeps its settings; only --methods may change. Methods whose training is not finished are reported and
skipped. Every response is saved in WORKDIR/seed*/evaluation/*.jsonl. Rerun the same command to resume.
--report_only builds WORKDIR/report from these records, without loading the model.
"""

import contextlib
import json
import pathlib

from absl import flags, logging

from experiments import settings, workdirs
from mass_jax import runtime
from mass_jax.config import Config, names_code
from mass_jax.errors import UserError
from mass_jax.evaluation import study
from mass_jax.own_function import CodeNotNamed
from mass_jax.planning import policies
from mass_jax.training import samplers
from mass_jax.training.components import assemble

settings.define()
settings.define_machines()
settings.define_compilation_cache()
settings.define_compile_effort()
flags.adopt_module_key_flags(settings)
workdirs.define("Directory of a run or of a new evaluation; pass it again to resume.")
flags.adopt_module_key_flags(workdirs)
_REPORT_ONLY = flags.DEFINE_bool("report_only", False, "Build the report from the existing records.")


def main(_: list[str]) -> None:
    """Runs `evaluate_and_report`."""
    settings.guarded(evaluate_and_report)


def evaluate_and_report(stop: runtime.Stop) -> None:
    """Runs the command; errors while reading and checking the user's input become `UserError`."""
    with contextlib.ExitStack() as held:
        components = None
        try:
            if flags.FLAGS.workdir is None:
                raise ValueError("--workdir is missing; pass the directory of a run, such as --workdir=runs/tiny")
            if not _REPORT_ONLY.value:
                settings.join_machines()
            if flags.FLAGS.print_config:
                print(settings.explicit(read_given()).to_json())
                return
            if _REPORT_ONLY.value:
                workdirs.use_copy(held)
                workdir = runtime.workdir_path(flags.FLAGS.workdir)
            else:
                workdir = workdirs.opened(held, stop)
            config = read_config(workdir)
            held.enter_context(runtime.lock_workdir(workdir, stop))
            if not _REPORT_ONLY.value:
                refuse_stored_code(config, workdir)
                mesh = runtime.make_mesh(flags.FLAGS.mesh)
                config = policies.resolved(config, mesh)
                held.enter_context(runtime.use_mesh(mesh))
                components = held.enter_context(contextlib.closing(assemble(config, mesh)))
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        if components is not None:
            study.run_evaluation(components, workdir, stop)
        if runtime.is_first():
            study.write_report(config, workdir)
            print((workdir / "report" / "table1.md").read_text(encoding="utf-8"))
            logging.info("report: %s", workdir / "report")


def refuse_stored_code(config: Config, workdir: pathlib.Path) -> None:
    """Raises a ValueError if the settings of a work directory name code or a server that the command line does not."""
    for name in ("sampler", "task"):
        value = getattr(config, name)
        if names_code(value) and not flags.FLAGS[name].present:
            raise ValueError(f"the settings in {workdir} name code to run; pass --{name}={value} if you trust it")
    if config.sampler == samplers.VLLM and not flags.FLAGS["sampler_url"].present:
        raise ValueError(
            f"the settings in {workdir} name a server; pass --sampler_url={config.sampler_url} if you trust it"
        )


def read_config(workdir: pathlib.Path) -> Config:
    """Reads the settings of a work directory, overridden by the flags on the command line.

    In a fresh work directory, or with --preset, all settings come from the flags.

    Raises:
        ValueError: If a setting other than the methods differs from the work directory, or its settings are damaged.
    """
    path = workdir / "config.json"
    config = combined(None if runtime.read_settings(path) is None else path.read_bytes(), str(path))
    runtime.check_workdir(workdir, config.to_json(), study.MAY_DIFFER, replace=True)
    return config


def read_given() -> Config:
    """Reads the settings of --workdir for --print_config; of a URL, only its config.json is read."""
    given = flags.FLAGS.workdir
    if not runtime.is_url(given):
        workdirs.use_copy(contextlib.ExitStack())  # refuses --local_workdir
        return read_config(runtime.workdir_path(given))
    stored, results = runtime.peek_workdir(given)
    config = combined(stored, f"{given.rstrip('/')}/config.json")
    if stored is not None and results:
        runtime.check_settings(given, json.loads(stored), config.to_json(), study.MAY_DIFFER)
    return config


def combined(stored: bytes | None, source: str) -> Config:
    """Returns stored settings, overridden by the flags on the command line.

    Args:
        stored: contents of the config.json of a work directory; None if it is fresh.
        source: path or URL of that file, for messages.
    """
    before, named = None, settings.own_code()
    if stored is not None:
        try:
            before = Config.from_json(stored.decode("utf-8"), named)
        except CodeNotNamed:
            raise
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{source} is damaged ({error}); choose another --workdir") from None
    config = settings.read() if before is None or flags.FLAGS["preset"].present else settings.with_flags(before)
    return policies.stored(config, None if stored is None else json.loads(stored))


if __name__ == "__main__":
    settings.run(main)
