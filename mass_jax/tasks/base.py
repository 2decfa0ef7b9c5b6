"""The `Task` protocol and its data types: problems, synthetic examples, verdicts. Plain Python, no JAX.

The method sees a domain only through a `Task`. To add a domain, write a class with these methods and register it in
`mass_jax.tasks.registry`; `mass_jax.tasks.testbed` is a complete example.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from mass_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem with its gold solution.

    Attributes:
        id: Unique name, kept in every record of this problem.
        problem: Problem text shown to the solver.
        solution: Gold solution in the form that the solver should generate.
        answer: Gold answer that the verifier compares with.
        subject: Group for per-subject tables (the paper's Figure 2).
        level: Difficulty, or None if the source has none.
        cluster: Name shared by problems that test the same skill; confidence intervals resample clusters, not problems.
            If empty, the problem is its own cluster.

    Example:
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
        """The cluster, or the id if the problem is its own cluster."""
        return self.cluster or self.id


@dataclasses.dataclass(frozen=True)
class Example:
    """A synthetic example (p_i, a_i): a problem and its solution, generated for a target problem.

    Attributes:
        problem: Problem text p_i.
        solution: Solution text a_i.
    """

    problem: str
    solution: str


@dataclasses.dataclass(frozen=True)
class Problems:
    """Training and evaluation problems for one random seed.

    Attributes:
        train: Meta-training problems.
        columns: Evaluation sets, keyed by column name in the results table; the first one is the headline result.
        oracle: Function (problem, count) -> correct, useful examples, the upper reference for a generator; None if the
            domain has no such function.
    """

    train: list[Problem]
    columns: Mapping[str, list[Problem]]
    oracle: Callable[[Problem, int], list[Example]] | None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A generated text without a usable example; it has weight 0 in the inner loss.

    Attributes:
        reason: Short reason, counted in the metrics.
    """

    reason: str


class Verdict(enum.Enum):
    """Outcome of checking one response. Only `RIGHT` earns reward; the others are counted separately."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMED_OUT = "timed_out"


class Task(Protocol):
    """Protocol of a domain: prompts, a parser for synthetic examples, and a verifier."""

    def solver_prompt(self, problem: str, shots: Sequence[Example] = ()) -> str:
        """Returns the prompt for solving a problem; the inner loop trains on examples in the same form.

        Args:
            problem: Problem text.
            shots: Solved problems that precede it, for the few-shot baseline.
        """
        ...

    def generator_prompt(self, problem: str) -> str:
        """Returns the prompt x_i for generating one synthetic example for a target problem."""
        ...

    def scorer_text(self, problem: str, example: Example) -> str:
        """Returns the input text of the scorer s_eta(T, p_i, a_i)."""
        ...

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        """Extracts the example (p_i, a_i) from generated text; rejects copies of the target problem. Never raises."""
        ...

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """Checks `responses[i]` against `problems[i]`. Never raises, never evaluates text."""
        ...

    def final_answer(self, response: str) -> str | None:
        """Returns the answer in a response, used for majority votes, or None if there is none. Never raises."""
        ...

    def useful(self, problem: Problem, example: Example) -> bool | None:
        """Returns whether an example helps with a target problem, or None if the domain cannot tell.

        Reported only, never trained on.
        """
        ...


@runtime_checkable
class Submits(Protocol):
    """Optional protocol of a task with slow verification, which runs asynchronously."""

    def submit(self, problem: Problem, response: str) -> "Future[Verdict]":
        """Starts verifying one response and returns immediately, so that verification overlaps sampling."""
        ...


@runtime_checkable
class Instructs(Protocol):
    """Optional protocol of a task that can ask an instruction-tuned model for an example; the row `quest` needs it."""

    def instructed_prompt(self, problem: str) -> str:
        """Returns a conversation that asks for one synthetic example; `parse_example` reads the reply."""
        ...


def instructed_prompt(task: Task, problem: str) -> str:
    """Returns the prompt that instructs a model to write one synthetic example for a target problem.

    Args:
        task: Task.
        problem: Text of the target problem.

    Raises:
        UserError: If the task does not implement `Instructs`.
    """
    if not isinstance(task, Instructs):
        raise UserError(
            "--methods names 'quest', but --task has no instructed prompt; leave it out, or use --task=families, math "
            "or reasoning_gym"
        )
    return task.instructed_prompt(problem)


def start_verifying(task: Task, problems: Sequence[Problem], responses: Sequence[str]) -> Callable[[], list[Verdict]]:
    """Starts checking `responses[i]` against `problems[i]`.

    Args:
        task: Task that verifies, asynchronously if it implements `Submits`.
        problems: Problems.
        responses: One response per problem.

    Returns:
        A function that waits for the verdicts and returns them in order.
    """
    if isinstance(task, Submits):
        futures = [task.submit(problem, response) for problem, response in zip(problems, responses, strict=True)]
        return lambda: [future.result() for future in futures]
    verdicts = task.verify(problems, responses)
    return lambda: verdicts
