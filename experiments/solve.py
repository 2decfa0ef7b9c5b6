"""Answers questions, each by a model that has first adapted itself to it.

    python -m experiments.audit policy > runs/tiny/policy.json
    python -m experiments.solve --workdir=runs/tiny --problem="4 kabo 3"
    python -m experiments.solve --workdir=runs/tiny --input=problems.jsonl --out=answers.jsonl

The first line writes the permission without which nothing is adapted; read it, and change what is to be otherwise. A
line of problems.jsonl is an object with "problem" and perhaps "id". Given again, the last command goes on where it was.
WORKDIR/audit/events.jsonl records what was done; `python -m experiments.audit` reads it.
"""

import pathlib
from collections.abc import Iterator

from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.audit.answers import AnswerFile, as_line
from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.serving import loading
from mass_jax.serving.guards import regression
from mass_jax.tasks.base import Example

FLAGS = flags.FLAGS


def define() -> None:
    DEFINE_path("workdir", None, "Directory of a run of experiments.train.")
    DEFINE_path("model", None, "In place of a workdir: 'tiny', or a directory or hub id with a model's files.")
    flags.DEFINE_string("run", None, "mass, mass_gold or pretrained; by default the first that the workdir has.")
    flags.DEFINE_integer("train_seed", None, "Meta-training seed of the workdir; by default its first.")
    flags.DEFINE_string("problem", None, "One question.")
    DEFINE_path("input", None, "JSONL file of questions.")
    DEFINE_path("out", None, "JSONL file of answers, to which is appended; by default they are printed.")
    flags.DEFINE_bool("no_adapt", False, "Answer by the model as it is; takes no policy and writes no log.")
    DEFINE_path("policy", None, "Who may adapt what; by default WORKDIR/policy.json.")
    DEFINE_path("log", None, "Event log; by default WORKDIR/audit/events.jsonl.")
    flags.DEFINE_string("log_text", "full", "'full', or 'hash' to keep texts out of the log.")
    DEFINE_path("suite", None, "JSONL file of texts that an update must not make the model worse at.")
    DEFINE_path("real", None, "JSONL file of real examples ('problem', 'solution') to compare with and mix in.")
    flags.DEFINE_integer("seed", 0, "Of everything drawn.")
    flags.DEFINE_integer("batch", 16, "Most questions at a time.", lower_bound=1)


def main(_: list[str]) -> None:
    settings.guarded(run)


def run(stop: runtime.Stop) -> None:
    questions = loading.as_questions(read_questions())
    with open_solver() as solver:
        if FLAGS.out is None:
            for answer in answers(solver, questions, stop):
                print(as_line(answer) if FLAGS.problem is None else in_words(answer), end="", flush=True)
            return
        with AnswerFile(pathlib.Path(FLAGS.out)) as file:
            left = file.left(questions, solver.request)
            logging.info("%d questions, %d of them answered before", len(questions), len(questions) - len(left))
            for answer in answers(solver, left, stop):
                file.write(answer)


def answers(solver: loading.AdaptationService, questions: list, stop: runtime.Stop) -> Iterator[loading.Answer]:
    """Answers with progress."""
    stream = solver.stream(questions, stop, resume=FLAGS.out is not None)
    adapted = 0
    for (i, report), answer in zip(runtime.progress("solve", 0, len(questions)), stream, strict=True):
        adapted += answer.decision == "adapted"
        report(adapted=adapted / (i + 1))
        yield answer


def read_questions() -> list:
    if (FLAGS.problem is None) == (FLAGS.input is None):
        raise UserError("give either --problem='...' or --input=FILE.jsonl")
    if FLAGS.input is None:
        return [FLAGS.problem]
    rows = jsonl.read(pathlib.Path(FLAGS.input))
    if not rows:
        raise UserError(f"--input={FLAGS.input} has no questions; give one JSON object per line")
    return [row.value for row in rows]


def open_solver() -> loading.AdaptationService:
    if (FLAGS.workdir is None) == (FLAGS.model is None):
        raise UserError("give either --workdir=DIR of a training run, or --model=tiny or another")
    if FLAGS.workdir is not None and not (pathlib.Path(FLAGS.workdir) / "config.json").is_file():
        raise UserError(
            f"--workdir={FLAGS.workdir} holds no run; make one with experiments.train, or give --model=tiny"
        )
    return loading.load(
        FLAGS.workdir or FLAGS.model,
        run=FLAGS.run,
        train_seed=FLAGS.train_seed,
        policy_file=FLAGS.policy,
        log=FLAGS.log,
        log_text=FLAGS.log_text,
        seed=FLAGS.seed,
        batch=FLAGS.batch,
        suite=FLAGS.suite,
        real=None if FLAGS.real is None else read_real(pathlib.Path(FLAGS.real)),
        adapt=not FLAGS.no_adapt,
    )


def read_real(path: pathlib.Path) -> list[Example]:
    """Reads real examples from a JSONL file."""
    rows = jsonl.read(path)
    for line, row in rows:
        if not isinstance(row, dict) or not all(regression.is_text(row.get(key)) for key in ("problem", "solution")):
            raise UserError(f'--real={path}:{line} needs texts "problem" and "solution"')
    return [Example(row["problem"], row["solution"]) for _, row in rows]


def in_words(answer: loading.Answer) -> str:
    """One answer for a reader."""
    why = "" if answer.reason == "" else f" ({answer.reason})"
    recorded = "" if answer.event is None else f", record {answer.event}"
    tokens, seconds = sum(answer.tokens.values()), sum(answer.seconds.values())
    return (
        f"{answer.text}\n"
        f"  {answer.decision}{why}{recorded}; without adaptation: {answer.before}\n"
        f"  {tokens} tokens, {answer.flops / 1e9:.3g} GFLOP, {seconds:.3g} s\n"
    )


# Defined only when run: the commands share names of flags, and tests import several of them.
if __name__ == "__main__":
    define()
    settings.run(main)
