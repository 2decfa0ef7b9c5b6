"""Reads the audit log: verifies it, shows and replays events, exports adapters and writes an HTML page.

    python -m experiments.audit policy                               print a policy to start from
    python -m experiments.audit verify --workdir=runs/tiny           detect any edit, removal or reordering
    python -m experiments.audit show [EVENT] --workdir=runs/tiny     list all records, or print one in full
    python -m experiments.audit replay EVENT --workdir=runs/tiny     recompute an adapter and compare its bits
    python -m experiments.audit report --workdir=runs/tiny --out=audit.html
    python -m experiments.audit export EVENT --workdir=runs/tiny --out=DIR   write an adapter in PEFT format

EVENT is a record's number, or the first 8 or more digits of its hash. No command writes to the log.
"""

import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags, logging

from experiments import settings, workdirs
from experiments.path_flags import DEFINE_path
from mass_jax.audit import log
from mass_jax.audit.chain import Broken
from mass_jax.config import nearest
from mass_jax.errors import UserError

FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of this command."""
    workdirs.define("Directory of a run of experiments.train.")
    flags.adopt_module_key_flags(workdirs)
    DEFINE_path("model", None, "Instead of a workdir: the model given to experiments.solve.")
    DEFINE_path("log", None, "Event log; defaults to WORKDIR/audit/events.jsonl.")
    flags.DEFINE_string("expect", None, "verify: NUMBER:HASH of a record, noted earlier.")
    flags.DEFINE_string("problem", None, "replay, export: the event's problem, if the log stores no texts.")
    DEFINE_path("out", None, "report: file of the page; export: directory of the adapter.")
    flags.DEFINE_string("run", None, "replay, export: training run of the workdir, as given to experiments.solve.")
    flags.DEFINE_integer("train_seed", None, "replay, export: meta-training seed, as given to experiments.solve.")
    flags.DEFINE_string("task", None, "replay, export: own task of the workdir, as given to experiments.solve.")
    flags.DEFINE_string("inner_optimizer", None, "replay, export: own inner optimizer, as given to experiments.solve.")


def main(argv: Sequence[str]) -> None:
    """Runs the subcommand named by the first argument."""
    try:
        if len(argv) < 2:
            raise UserError(f"no command; give one of {', '.join(COMMANDS)}")
        name, *rest = argv[1:]
        if name not in COMMANDS:
            raise UserError(f"command {name!r} is unknown; {nearest(name, COMMANDS)}")
        most = int(name in OF_AN_EVENT)
        if len(rest) > most:
            raise UserError(f"unexpected argument {rest[most]!r}; {name} takes {'one EVENT' if most else 'none'}")
        with contextlib.ExitStack() as held:
            workdirs.use_copy(held)
            COMMANDS[name](*rest)
    except UserError as error:
        settings.fail(str(error))


def policy() -> None:
    """Prints the default policy."""
    from mass_jax.serving.guards.policy import Policy

    print(Policy().to_json(), end="")


def verify() -> None:
    """Verifies the hash chain; ends with status 1 if it is broken."""
    expect = None
    if FLAGS.expect is not None:
        number, _, digest = FLAGS.expect.partition(":")
        if not number.isdigit() or not digest:
            raise UserError(f"--expect={FLAGS.expect!r} must be NUMBER:HASH, as printed by verify")
        expect = int(number), digest
    try:
        head, notes = log.verify(log_path(), expect)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        raise SystemExit(1) from None
    for note in notes:
        print(f"note: {note}")
    print(f"ok: {head.number} records; the last is {head.number}:{head.hash}")


def show(which: str | None = None) -> None:
    """Lists all records, or prints one in full."""
    if which is not None:
        print(json.dumps(find(which), indent=1, ensure_ascii=True))
        return
    for record, _ in log.records(log_path()):
        print(in_a_line(record))


def in_a_line(record: Mapping[str, Any]) -> str:
    """Formats a record on one line; texts are escaped because they are untrusted."""
    line = f"{record['number']:>6} {record.get('time', ''):24} {record['kind']:10}"
    if record["kind"] == "adaptation":
        used = sum(example["used"] for example in record["examples"])
        line += f" {record['decision']:11} {used}/{len(record['examples'])} examples"
        line += f" {json.dumps(record['problem'])}: {json.dumps(record['before'])} -> {json.dumps(record['answer'])}"
        line += f" {record['reason']}"
    elif record["kind"] == "grant":
        line += f" {record['questions']} questions, {record['tokens']} tokens to {record['user']}"
    elif record["kind"] == "unanswered":
        line += f" {json.dumps(record['problem'])}: {record['reason']}"
    return line.rstrip()


def replay(which: str | None = None) -> None:
    """Recomputes the adapter of an event and compares its bits; ends with status 1 if they differ."""
    record = find(which)
    found, _, _ = recompute(record)
    for name in found.differs:
        print(f"note: {name} differs from the record")
    if not found.same:
        print(f"DIFFERENT: the recomputed adapter of record {record['number']} has other bits")
        raise SystemExit(1)
    print(f"ok: the recomputed adapter of record {record['number']} is bit-identical ({record['adapter']})")


def export(which: str | None = None) -> None:
    """Writes the adapter of an event in PEFT format, with its base model where meta-training changed it."""
    from mass_jax.serving.export import check_new, write_adapter

    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory for the adapter")
    out = pathlib.Path(FLAGS.out)
    check_new(out)
    record = find(which)
    adapter, model, directory = recompute_same(record)
    write_adapter(out, model.solver, model.weights, directory, adapter, trained=FLAGS.workdir is not None)
    print(f"wrote {out}: the adapter of record {record['number']}, decision {record['decision']}")


def recompute_same(record: Mapping[str, Any]) -> tuple[Any, Any, pathlib.Path]:
    """Replays an event; returns its adapter, the model, and the directory of its files.

    Raises:
        UserError: the recomputed adapter has other bits than the recorded one.
    """
    found, model, directory = recompute(record)
    if not found.same:
        raise UserError(f"the recomputed adapter of record {record['number']} has other bits; run replay for details")
    return found.adapter, model, directory


def report() -> None:
    """Writes the HTML page of the log."""
    from mass_jax.audit.log_page import write_page

    if FLAGS.out is None:
        raise UserError("--out is missing; give a file for the page, like --out=audit.html")
    path = log_path()
    try:
        count = write_page(path, pathlib.Path(FLAGS.out))
    except OSError as error:
        raise UserError(f"--out={FLAGS.out} cannot be written ({error.strerror}); choose another") from None
    print(f"wrote {FLAGS.out}: {count} events")


def recompute(record: Mapping[str, Any]) -> tuple[Any, Any, pathlib.Path]:
    """Replays an event; returns the result of `serving.replay.replay`, the model, and the directory of its files."""
    from mass_jax.audit.texts import Texts
    from mass_jax.serving import identity, source, stages
    from mass_jax.serving.replay import problem_of, replay
    from mass_jax.tasks.base import Example

    if (FLAGS.workdir is None) == (FLAGS.model is None):
        raise UserError("give either --workdir=DIR or --model=NAME, the one given to experiments.solve")
    problem = problem_of(record, Texts(log_path(), "full"), FLAGS.problem)
    found = source.load_model(
        FLAGS.workdir or FLAGS.model,
        FLAGS.run,
        FLAGS.train_seed,
        inner_optimizer=FLAGS.inner_optimizer,
        own_task=FLAGS.task,
    )
    if record["task"] != found.config.task:
        raise UserError(
            f"record {record['number']} is of task {record['task']!r}, but the model's own task is "
            f"{found.config.task!r}; call mass_jax.serving.replay.replay with a service for that task"
        )
    problems = found.chosen.problems(found.config.seeds[0]).train[: stages.REAL_EXAMPLES]
    real = [Example(problem.problem, problem.solution) for problem in problems]
    model = stages.Model(found.config, found.rollouts, found.weights, (), real, 0)
    model = stages.with_loop(model, record["inner"]["steps"], record["inner"]["rate"])
    same = identity.identity(found.weights, found.directory, model.config.to_json(), "")
    del same["policy"]  # the policy affects the decision, not the bits
    return replay(model, same, record, problem), model, found.directory


def find(which: str | None) -> dict[str, Any]:
    """Returns the record with this number, or with a hash that starts with these digits."""
    if not which:
        raise UserError("EVENT is missing; give a record's number, or the start of its hash")
    found = None
    for record, _ in log.records(log_path()):  # to the end, to verify the whole log first
        if which == str(record["number"]) or (len(which) >= 8 and record["hash"].startswith(which)):
            found = record
    if found is None:
        raise UserError(f"{log_path()} has no record {which!r}; `show` lists them")
    return found


def log_path() -> pathlib.Path:
    """Returns the path of the log."""
    if FLAGS.log is not None:
        return pathlib.Path(FLAGS.log)
    if FLAGS.workdir is None:
        raise UserError("--log is missing; give the event log, or --workdir")
    return pathlib.Path(FLAGS.workdir) / "audit" / "events.jsonl"


COMMANDS: dict[str, Callable[..., None]] = {
    "policy": policy,
    "verify": verify,
    "show": show,
    "replay": replay,
    "report": report,
    "export": export,
}
OF_AN_EVENT = ("show", "replay", "export")


if __name__ == "__main__":
    define()
    logging.set_verbosity(logging.WARNING)  # orbax logs a page on every load
    settings.run(main, settings.parse_flags)
