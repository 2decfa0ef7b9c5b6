"""What a task is: problems, prompts, parsing and verification, as plain Python (no JAX).

A `Task` is all that the method knows of a domain. The testbed in `mass_jax.tasks.testbed` is one; a domain of yours
is another class with these methods.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem with its gold solution.

    Args:
        id: unique name, kept in every record of this problem.
        problem: the text put before the solver.
        solution: the gold solution as the solver should write it.
        answer: what the verifier compares with.
        subject: group for per-subject tables (the paper's Figure 2).
        level: difficulty, or None where the source has none.
        cluster: problems of one cluster share what is to be learned, so intervals resample clusters, not problems;
            empty: the problem is its own cluster.

    >>> Problem("a", "1 + 1", "2", "2").cluster_key
    'a'
    """

    id: str
    problem: str
    solution: str
    answer: str
    subject: str = ""
    level: str | None = None
    cluster: str = ""

    @property
    def cluster_key(self) -> str:
        return self.cluster or self.id


@dataclasses.dataclass(frozen=True)
class Example:
    """A practice example (p_i, a_i) that a generator wrote for a target problem."""

    problem: str
    solution: str


@dataclasses.dataclass(frozen=True)
class Problems:
    """The problem sets of one seed.

    Args:
        train: meta-training problems.
        columns: evaluation sets by the name of their column in the table; the first is the headline.
        oracle: examples that a perfect generator could write (problem, count) -> examples; None where nobody knows.
    """

    train: list[Problem]
    columns: Mapping[str, list[Problem]]
    oracle: Callable[[Problem, int], list[Example]] | None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """Why a generated text gave no practice example; such a text weighs 0 in the inner loss and is counted."""

    reason: str


class Verdict(enum.Enum):
    """Outcome of checking one response. Only RIGHT earns reward; the rest are counted apart."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMED_OUT = "timed_out"


class Task(Protocol):
    """A domain: how to ask, what to keep of what was written, and when an answer is right."""

    def solver_prompt(self, problem: str, shots: Sequence[Example] = ()) -> str:
        """Prompt under which the model answers `problem`; practice examples are trained in the same form.

        `shots` are solved problems to put before it, for the few-shot baseline.
        """
        ...

    def generator_prompt(self, problem: str) -> str:
        """Prompt x_i under which the model writes one practice example for `problem`."""
        ...

    def scorer_text(self, problem: str, example: Example) -> str:
        """What the scorer s_eta(T, p_i, a_i) reads."""
        ...

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        """Finds (p_i, a_i) in generated text; copies of the target problem are rejected. Never raises."""
        ...

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """Checks `responses[i]` against `problems[i]`. Never raises, never evaluates text."""
        ...

    def final_answer(self, response: str) -> str | None:
        """The answer in a response, by which votes are counted; None where there is none. Never raises."""
        ...

    def useful(self, problem: Problem, example: Example) -> bool | None:
        """Whether an example teaches what the problem needs, where the domain knows; None where it does not.

        Only reported, never trained on.
        """
        ...


@runtime_checkable
class Submits(Protocol):
    """A task whose verdicts may take long: it starts checking at once and answers later."""

    def submit(self, problem: Problem, response: str) -> "Future[Verdict]":
        """Like `verify`, for one response, without waiting: so that verifying overlaps sampling."""
        ...


def start_verifying(task: Task, problems: Sequence[Problem], responses: Sequence[str]) -> Callable[[], list[Verdict]]:
    """Starts checking `responses[i]` against `problems[i]`; what is returned waits for the verdicts."""
    if isinstance(task, Submits):
        futures = [task.submit(problem, response) for problem, response in zip(problems, responses, strict=True)]
        return lambda: [future.result() for future in futures]
    verdicts = task.verify(problems, responses)
    return lambda: verdicts
