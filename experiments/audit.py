"""Reads the log of test-time changes: verifies it, shows it, makes an update again, and writes a page or an adapter.

    python -m experiments.audit policy                               a policy to start from
    python -m experiments.audit verify --workdir=runs/tiny           finds any edit, removal or reordering
    python -m experiments.audit show [EVENT] --workdir=runs/tiny     all events, or one in full
    python -m experiments.audit replay EVENT --workdir=runs/tiny     makes its adapter again, bit for bit
    python -m experiments.audit report --workdir=runs/tiny --out=audit.html
    python -m experiments.audit export EVENT --workdir=runs/tiny --out=DIR   the adapter in PEFT's format

EVENT is a record's number, or the start of its hash. Nothing here writes to the log.
"""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax.audit import log
from mass_jax.audit.chain import Broken
from mass_jax.config import nearest
from mass_jax.errors import UserError

FLAGS = flags.FLAGS


def define() -> None:
    DEFINE_path("workdir", None, "Directory of a run of experiments.train.")
    DEFINE_path("model", None, "In place of a workdir: the model that the events were made with.")
    DEFINE_path("log", None, "Event log; by default WORKDIR/audit/events.jsonl.")
    flags.DEFINE_string("expect", None, "verify: NUMBER:HASH of a record, noted down before.")
    flags.DEFINE_string("problem", None, "replay, export: the problem of an event whose log keeps no texts.")
    DEFINE_path("out", None, "report: the page; export: a directory.")
    flags.DEFINE_string("run", None, "replay, export: training run of the workdir, as given to experiments.solve.")
    flags.DEFINE_integer("train_seed", None, "replay, export: meta-training seed, as given to experiments.solve.")


def main(argv: Sequence[str]) -> None:
    try:
        if len(argv) < 2:
            raise UserError(f"no command given; give one of {', '.join(COMMANDS)}")
        name, *rest = argv[1:]
        if name not in COMMANDS:
            raise UserError(f"command {name!r} is unknown; {nearest(name, COMMANDS)}")
        most = int(name in OF_AN_EVENT)
        if len(rest) > most:
            raise UserError(f"unexpected argument {rest[most]!r}; {name} takes {'one EVENT' if most else 'none'}")
        COMMANDS[name](*rest)
    except UserError as error:
        settings.fail(str(error))


def policy() -> None:
    from mass_jax.serving.guards.policy import Policy

    print(Policy().to_json(), end="")


def verify() -> None:
    expect = None
    if FLAGS.expect is not None:
        number, _, digest = FLAGS.expect.partition(":")
        if not number.isdigit() or not digest:
            raise UserError(f"--expect={FLAGS.expect!r} must be NUMBER:HASH, as verify prints it")
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
    if which is not None:
        print(json.dumps(find(which), indent=1, ensure_ascii=True))
        return
    for record, _ in log.records(log_path()):
        print(in_a_line(record))


def in_a_line(record: Mapping[str, Any]) -> str:
    """One record for a reader; texts with their escapes, since they may be anything."""
    line = f"{record['number']:>6} {record.get('time', ''):24} {record['kind']:10}"
    if record["kind"] == "adaptation":
        used = sum(example["used"] for example in record["examples"])
        line += f" {record['decision']:11} {used}/{len(record['examples'])} examples"
        line += f" {json.dumps(record['problem'])}: {json.dumps(record['before'])} -> {json.dumps(record['answer'])}"
        line += f" {record['reason']}"
    elif record["kind"] == "grant":
        line += f" {record['questions']} questions, {record['tokens']} tokens to {record['user']}"
    return line.rstrip()


def replay(which: str | None = None) -> None:
    record = find(which)
    found, _ = made_again(record)
    for name in found.differs:
        print(f"note: {name} is not as it was")
    if not found.same:
        print(f"DIFFERENT: the adapter of record {record['number']} was not made again bit for bit")
        raise SystemExit(1)
    print(f"ok: the adapter of record {record['number']} is the same, bit for bit ({record['adapter']})")


def export(which: str | None = None) -> None:
    from mass_jax.llama import peft, weights

    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory for the adapter")
    record = find(which)
    found, model = made_again(record)
    if not found.same:
        raise UserError(f"the adapter of record {record['number']} was not made again bit for bit; see replay")
    out, solver = pathlib.Path(FLAGS.out), model.parts.solver
    peft.save(out, solver.adapter(model.weights, found.adapter))
    if solver.generator == "full" and FLAGS.workdir is not None:
        # Meta-training changed the weights beneath the adapter, which is of no use without them.
        weights.save(out / "base", solver.params(model.weights), solver.config)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (model.parts.directory / name).is_file():
                shutil.copy(model.parts.directory / name, out / "base" / name)
    print(f"wrote {out}: the adapter of record {record['number']}, decision {record['decision']}")


def report() -> None:
    from mass_jax.audit.log_page import write_page

    if FLAGS.out is None:
        raise UserError("--out is missing; give a file for the page, like --out=audit.html")
    path = log_path()
    try:
        count = write_page(path, pathlib.Path(FLAGS.out))
    except OSError as error:
        raise UserError(f"--out={FLAGS.out} cannot be written ({error.strerror}); choose another") from None
    print(f"wrote {FLAGS.out}: {count} events")


def made_again(record: Mapping[str, Any]) -> tuple[Any, Any]:
    """What `audit.replay` found, and the model."""
    from mass_jax.audit.texts import Texts
    from mass_jax.serving import identity, source, stages
    from mass_jax.serving.replay import problem_of, replay
    from mass_jax.tasks.base import Example

    if (FLAGS.workdir is None) == (FLAGS.model is None):
        raise UserError("give either --workdir=DIR or --model=NAME, as it was given to experiments.solve")
    problem = problem_of(record, Texts(log_path(), "full"), FLAGS.problem)
    found = source.load_model(FLAGS.workdir or FLAGS.model, FLAGS.run, FLAGS.train_seed)
    if record["task"] != found.parts.config.task:
        raise UserError(
            f"record {record['number']} is of task {record['task']!r}, which is not the model's own "
            f"{found.parts.config.task!r}; call mass_jax.serving.replay.replay with the setup of a solver that has it"
        )
    parts = stages.with_loop(found.parts, record["inner"]["steps"], record["inner"]["rate"])
    real = [Example(p.problem, p.solution) for p in parts.problems(parts.config.seeds[0]).train[: stages.REAL_EXAMPLES]]
    model = stages.Model(parts, found.weights, (), real, 0)
    same = identity.identity(found.weights, parts.directory, parts.config.to_json(), "")
    del same["policy"]  # it decided, and shaped no bit
    return replay(model, same, record, problem), model


def find(which: str | None) -> dict[str, Any]:
    """The record with this number, or whose hash starts like this."""
    if not which:
        raise UserError("no EVENT given; give a record's number, or the start of its hash")
    found = None
    for record, _ in log.records(log_path()):  # to the end: a broken log is shown nothing of
        if which == str(record["number"]) or (len(which) >= 8 and record["hash"].startswith(which)):
            found = record
    if found is None:
        raise UserError(f"no record {which!r} in {log_path()}; `show` lists them")
    return found


def log_path() -> pathlib.Path:
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
    logging.set_verbosity(logging.WARNING)  # orbax logs a page at every load
    settings.run(main, settings.parse_flags)
