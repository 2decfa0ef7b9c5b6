"""Writes a meta-trained generator, or the adapter of one question, for transformers, peft, vLLM and other libraries.

    python -m experiments.export --workdir=runs/tiny --out=DIR                   merged weights and tokenizer
    python -m experiments.export --workdir=runs/tiny --out=DIR --format=peft     the generator's adapter
    python -m experiments.export --workdir=runs/tiny --event=EVENT --out=DIR     with the adapter of an event merged in

EVENT is a record's number in the audit log, or the first 8 or more digits of its hash; `experiments.audit show` lists
records. The adapter of an event is recomputed and written only if its bits are those of the record.
"""

import contextlib
import pathlib

from absl import flags, logging

from experiments import audit, settings, workdirs
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError

FLAGS = flags.FLAGS
FORMATS = ("merged", "peft")


def define() -> None:
    """Defines the flags of this command."""
    settings.define_compilation_cache()
    workdirs.define("Directory of a run of experiments.train.")
    flags.adopt_module_key_flags(workdirs)
    DEFINE_path("model", None, "Instead of a workdir: 'tiny', or a directory or hub id with model files.")
    flags.DEFINE_string("run", None, "mass, mass_gold or pretrained; defaults to the first one in the workdir.")
    flags.DEFINE_integer("train_seed", None, "Meta-training seed of the workdir; defaults to its first.")
    flags.DEFINE_enum("format", "merged", FORMATS, "merged: one set of weights; peft: an adapter.")
    flags.DEFINE_string("event", None, "Event of the audit log whose adapter is added; by default none.")
    DEFINE_path("log", None, "Event log; defaults to WORKDIR/audit/events.jsonl.")
    flags.DEFINE_string("problem", None, "The event's problem, if the log stores no texts.")
    flags.DEFINE_string("task", None, "Own task of the workdir, named again: module:function or file.py:function.")
    flags.DEFINE_string("inner_optimizer", None, "With --event: own inner optimizer of the workdir, named again.")
    DEFINE_path("out", None, "Directory to create.")


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(run)


def run(_: runtime.Stop) -> None:
    """Checks the flags and writes --out."""
    from mass_jax.serving import export

    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory to create")
    if (FLAGS.workdir is None) == (FLAGS.model is None):
        raise UserError("give either --workdir=DIR of a training run, or --model=NAME")
    out = pathlib.Path(FLAGS.out)
    export.check_new(out)
    with contextlib.ExitStack() as held:
        workdirs.use_copy(held)
        write(out)


def write(out: pathlib.Path) -> None:
    """Writes --out from a local directory."""
    from mass_jax.serving import export, source

    if FLAGS.event is None:
        named = FLAGS.workdir or FLAGS.model
        found = source.load_model(named, FLAGS.run, FLAGS.train_seed, own_task=FLAGS.task, adapts=False)
        solver, values, directory, inner = found.rollouts.solver, found.weights, found.directory, None
        what = found.label
    else:
        record = audit.find(FLAGS.event)
        inner, model, directory = audit.recompute_same(record)
        solver, values = model.solver, model.weights
        what = f"record {record['number']}, decision {record['decision']}"
    if FLAGS.format == "merged":
        export.write_merged(out, solver, values, directory, inner)
    else:
        export.write_adapter(out, solver, values, directory, inner, trained=FLAGS.workdir is not None)
    print(f"wrote {out}: {what}")


if __name__ == "__main__":
    define()
    logging.set_verbosity(logging.WARNING)  # orbax logs a page on every load
    settings.run(main)
