"""Functions that parse model output, wrapped for `stress.fuzz` as functions from a text to an outcome."""

import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import mass_jax
from mass_jax.llama import tokenizer
from mass_jax.method.text import encode_pairs
from mass_jax.serving.guards import gates
from mass_jax.tasks import chat
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.tasks.families import FamiliesTask
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.math import MathTask, Verifier, final_answer
from mass_jax.tasks.testbed import Domain, OperatorTask

GOLDS = ("86753.0917", r"\frac{86753}{917}", r"\sqrt{86753}", "(86753,917)", "86753, 917, 4", "x=86753", "zyzzyva")
TARGET = "A train travels 60 miles in 2 hours. What is its speed?"
LEFT = "left to a worker"

Reader = Callable[[str], str]
"""Function from a text to an outcome, such as "right" or "rejected: cut off"."""


def make_readers(pool: Any, load_tokenizer: bool = True) -> dict[str, Reader]:
    """Creates all readers.

    Args:
        pool: Receives the answers that need a worker.
        load_tokenizer: Whether to include the readers that need a tokenizer, which takes seconds to load.

    Returns:
        Readers by name.
    """
    verifier = Verifier(pool)
    domain = Domain.generate(seed=7)
    math, families, testbed = MathTask(verifier), FamiliesTask(), OperatorTask(domain)
    problems = {"families": Problem("f", "6 * 7", "0", "0", "times table"), "testbed": Problem("t", "7 zomu 4", "", "")}
    golds = iter(_endless(GOLDS))
    readers: dict[str, Reader] = {
        "final_answer": _final_answer,
        "verifier": lambda text: _verdict(verifier.submit(next(golds), text)),
        "grade as an answer": lambda text: _quick(grade_quickly(next(golds), text)),
        "grade as a gold answer": lambda text: _quick(grade_quickly(text, next(golds))),
        "gates, unparsed": lambda text: _gates(gates.Candidate(text, Rejected("?"), tokens=1, nll=1.0, agreement=0.5)),
        "gates, parsed": lambda text: _gates(gates.Candidate("x", Example(text, text), tokens=1, recomputed=True)),
    }
    for name, task in (("math", math), ("families", families), ("testbed", testbed)):
        readers[f"{name} vote"] = _vote(task)
    for name, task in (("families", families), ("testbed", testbed)):
        readers[f"{name} verdict"] = _task_verdict(task, problems[name])
        readers[f"{name} example"] = _example(task, problems[name])
    readers["math example"] = _example(math, Problem("m", TARGET, "", ""))
    readers["math example, lenient target"] = _example(math, Problem("m", "x", "", ""))
    readers["plain chat"] = lambda text: _kind(math.solver_prompt(text, [Example(text, text)]))
    if load_tokenizer:
        readers |= _with_tokenizer(math)
    return readers


def _with_tokenizer(math: MathTask) -> dict[str, Reader]:
    """Creates the readers that render a template or encode training rows."""
    tokens = tokenizer.load(pathlib.Path(mass_jax.__file__).parent / "data" / "tiny")
    tokens.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"

    def train(text: str) -> str:
        parsed = math.parse_example(text, TARGET)
        pair = (parsed.problem, parsed.solution) if isinstance(parsed, Example) else None
        return f"{encode_pairs(tokens, [pair], 64)[1]} too long"

    messages = [{"role": "user", "content": ""}]
    return {
        "template": lambda text: _kind(chat.render(tokens, [{**messages[0], "content": text}])),
        "training rows": train,
    }


def _endless(items: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from items


def _kind(value: Any) -> str:
    return type(value).__name__


def _final_answer(text: str) -> str:
    try:
        return f"found {_kind(final_answer(text))}"
    except Unreadable as reason:
        return f"none: {reason}"


def _verdict(future: "Future[Verdict] | None") -> str:
    if future is None or not future.done():
        return LEFT
    return future.result().value


def _quick(verdict: Verdict | None) -> str:
    return LEFT if verdict is None else verdict.value


def _task_verdict(task: Any, problem: Problem) -> Reader:
    """Creates a reader for the verdicts of a task; prefixed, since short answers may be correct by chance."""
    return lambda text: f"verdict {task.verify([problem], [text])[0].value}"


def _vote(task: Any) -> Reader:
    return lambda text: _kind(task.final_answer(text))


def _example(task: Any, problem: Problem) -> Reader:
    def read(text: str) -> str:
        parsed = task.parse_example(text, problem.problem)
        if isinstance(parsed, Rejected):
            return f"rejected: {parsed.reason}"
        task.useful(problem, parsed)
        return f"parsed {_kind(parsed)}"

    return read


def _gates(candidate: gates.Candidate) -> str:
    """Returns the verdicts of all gates on one candidate."""
    chosen: list[gates.Gate] = [
        gates.Length(),
        gates.Parse(),
        gates.Copy(),
        gates.Duplicates(1),
        gates.AnswerCheck(),
        gates.Calibration(),
    ]
    found = gates.run_gates(chosen, TARGET, [candidate])[0]
    return " ".join(f"{name}:{verdict.reason or 'passed'}" for name, verdict in found.items())
