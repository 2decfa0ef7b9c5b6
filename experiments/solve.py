"""Answers questions with a model that first adapts itself to each of them.

    python -m experiments.audit policy > runs/tiny/policy.json
    python -m experiments.solve --workdir=runs/tiny --problem="4 kabo 3"
    python -m experiments.solve --workdir=runs/tiny --input=problems.jsonl --out=answers.jsonl

The first command writes the policy, without which nothing is adapted; review and edit it. Each line of problems.jsonl
is an object with "problem" and optionally "id". Rerun the last command to resume. Every adaptation is recorded in
WORKDIR/audit/events.jsonl; `python -m experiments.audit` reads it.
"""

import pathlib
from collections.abc import Iterator

from absl import flags, logging

from experiments import service_flags, settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.audit.answers import AnswerFile, as_line
from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.serving import loading

FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of this command."""
    service_flags.define()
    flags.adopt_module_key_flags(service_flags)
    flags.DEFINE_string("problem", None, "A single question.")
    DEFINE_path("input", None, "JSONL file of questions.")
    DEFINE_path("out", None, "JSONL file to append answers to; by default they are printed.")
    flags.DEFINE_bool("no_adapt", False, "Answer without adaptation; needs no policy and writes no log.")
    flags.DEFINE_integer("batch", 16, "Largest number of questions per batch.", lower_bound=1)


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(run)


def run(stop: runtime.Stop) -> None:
    """Answers all questions, to stdout or to --out."""
    questions = loading.as_questions(read_questions())
    with service_flags.open_service(adapt=not FLAGS.no_adapt) as service:
        if FLAGS.out is None:
            for answer in answers(service, questions, stop):
                print(as_line(answer) if FLAGS.problem is None else in_words(answer), end="", flush=True)
            return
        with AnswerFile(pathlib.Path(FLAGS.out)) as file:
            left = file.left(questions, service.request)
            logging.info("%d questions, %d of them already answered", len(questions), len(questions) - len(left))
            for answer in answers(service, left, stop):
                file.write(answer)


def answers(service: loading.AdaptationService, questions: list, stop: runtime.Stop) -> Iterator[loading.Answer]:
    """Yields answers and reports progress."""
    stream = service.stream(questions, stop, resume=FLAGS.out is not None)
    adapted = 0
    for (i, report), answer in zip(runtime.progress("solve", 0, len(questions)), stream, strict=True):
        adapted += answer.decision == "adapted"
        report(adapted=adapted / (i + 1))
        yield answer


def read_questions() -> list:
    """Reads the questions of --problem or --input."""
    if (FLAGS.problem is None) == (FLAGS.input is None):
        raise UserError("give either --problem='...' or --input=FILE.jsonl")
    if FLAGS.input is None:
        return [FLAGS.problem]
    rows = jsonl.read(pathlib.Path(FLAGS.input))
    if not rows:
        raise UserError(f"--input={FLAGS.input} is empty; give one JSON object per line")
    return [row.value for row in rows]


def in_words(answer: loading.Answer) -> str:
    """Formats an answer for reading."""
    why = "" if answer.reason == "" else f" ({answer.reason})"
    recorded = "" if answer.event is None else f", record {answer.event}"
    tokens, seconds = sum(answer.tokens.values()), sum(answer.seconds.values())
    return (
        f"{answer.text}\n"
        f"  {answer.decision}{why}{recorded}; without adaptation: {answer.before}\n"
        f"  {tokens} tokens, {answer.flops / 1e9:.3g} GFLOP, {seconds:.3g} s\n"
    )


# Flags are defined only here: commands share flag names, and tests import several commands.
if __name__ == "__main__":
    define()
    settings.run(main)
