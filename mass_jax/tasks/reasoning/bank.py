"""Draws problems of reasoning-gym families; training and test problems differ in the text of the question."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mass_jax.config.fields import nearest
from mass_jax.errors import UserError
from mass_jax.tasks.base import Problem
from mass_jax.tasks.example_form import ANSWER, PROBLEM
from mass_jax.tasks.reasoning.generate import Range, generate
from mass_jax.tasks.sides import TEST_SHARE, Side, side_of

_ROUNDS = 4
EVALUATION_SEED = 0  # evaluation problems are shared by all runs


@dataclasses.dataclass(frozen=True)
class Scored:
    """Data with which the package scores answers to one problem.

    Attributes:
        family: Name of the family.
        exact: Whether only the text of the gold answer scores 1, so that no scorer has to run.
        entry: The package's entry: "question", "answer" and "metadata".
    """

    family: str
    exact: bool
    entry: Mapping[str, Any]


class Bank:
    """Source of the problems of some families.

    Args:
        level: "easy" or "default"; see `library.dataset`.
        fits: Function that returns whether a problem fits the model's token limits; others are left out.
        hidden: Questions that are never drawn, such as those that prompts show.
        scored: Where to keep the data for scoring every drawn problem, by its id.
    """

    def __init__(
        self,
        level: str,
        fits: Callable[[Problem], bool] = lambda problem: True,
        hidden: frozenset[str] = frozenset(),
        scored: dict[str, Scored] | None = None,
    ):
        self._level = level
        self._fits = fits
        self._hidden = hidden
        self.scored: dict[str, Scored] = {} if scored is None else scored

    def draw(
        self, required: Mapping[str, int], side: Side, wanted: int, seed: int = EVALUATION_SEED
    ) -> dict[str, list[Problem]]:
        """Draws distinct problems of each family.

        Args:
            required: Smallest number of problems, by the name of the family.
            side: Side of the questions.
            wanted: Largest number of problems per family.
            seed: Random seed.

        Returns:
            At least `required` and at most `wanted` problems by family.

        Raises:
            UserError: If the package lacks a family, or a family has fewer problems that can be scored and fit.
        """
        drawn: dict[str, dict[str, Problem]] = {family: {} for family in required}
        scorable = dict.fromkeys(required, 0)
        start, count = 0, 16 + wanted * (TEST_SHARE if side is Side.TEST else 2)
        for _ in range(_ROUNDS):
            short = [family for family in required if len(drawn[family]) < wanted]
            ranges = {family: Range(_stream(seed, family), start, count) for family in short}
            reply = self._generate(ranges)
            for family in short:
                scorable[family] += len(reply[family]["entries"])
                self._take(family, side, seed, reply[family], drawn[family], wanted)
            if all(len(drawn[family]) >= least for family, least in required.items()) or 0 in scorable.values():
                break
            start, count = start + count, 2 * count
        for family, least in required.items():
            if len(drawn[family]) < least:
                _refuse(family, self._level, side, least, len(drawn[family]), scorable[family])
        return {family: list(problems.values()) for family, problems in drawn.items()}

    def _generate(self, ranges: Mapping[str, Range]) -> dict[str, Any]:
        reply = generate(ranges, self._level)
        if "unknown" in reply:
            name = reply["unknown"]
            raise UserError(f"reasoning-gym has no family {name!r}; {nearest(name, reply['known'])}")
        families: dict[str, Any] = reply["families"]
        return families

    def _take(
        self, family: str, side: Side, seed: int, reply: Mapping[str, Any], drawn: dict[str, Problem], wanted: int
    ) -> None:
        """Adds the new problems of a side that fit."""
        for number, entry in reply["entries"]:
            if len(drawn) >= wanted:
                return
            question = one_line(entry["question"])
            if question in drawn or question in self._hidden or side_of_question(question) is not side:
                continue
            answer = entry["answer"].strip()
            if not answer or not answer.isprintable() or not question.isprintable() or _is_ambiguous(question, answer):
                continue
            name = f"{family}/{self._level}/{seed}/{number}"
            problem = Problem(id=name, problem=question, solution=answer, answer=answer, subject=family)
            if self._fits(problem):
                drawn[question] = problem
                self.scored[name] = Scored(family, reply["exact"], entry)


def side_of_question(question: str) -> Side:
    """Returns the side of a question, by a hash of its letters and digits.

    Example:
        >>> side_of_question("What is 1 + 1?") is side_of_question("what is 1 + 1")
        True
    """
    return side_of(squashed(question))


def squashed(text: str) -> str:
    """Returns the letters, digits and signs of a text, in lower case and without white space and closing marks.

    Example:
        >>> squashed(" What is 1 + 1? ")
        'whatis1+1'
    """
    return "".join(text.lower().split()).rstrip(".?!:")


def one_line(text: str) -> str:
    """Replaces every run of white space by one space, because a line break ends a generated example."""
    return " ".join(text.split())


def interleaved(problems: Mapping[str, Sequence[Problem]], count: int) -> list[Problem]:
    """Returns `count` problems from the families in turn."""
    longest = max(map(len, problems.values()))
    turns = [group[i] for i in range(longest) for group in problems.values() if i < len(group)]
    return turns[:count]


def _stream(seed: int, family: str) -> int:
    """Returns the seed of the package's generator; its problem i has a generator seeded by this number plus i."""
    return zlib.crc32(f"mass reasoning {seed} {family}".encode())


def _is_ambiguous(question: str, answer: str) -> bool:
    """Returns whether the written example could not be divided into problem and solution again."""
    return any(mark in text for mark in (ANSWER, PROBLEM) for text in (question, answer))


def _refuse(family: str, level: str, side: Side, required: int, found: int, scorable: int) -> None:
    if not scorable:
        raise UserError(
            f"family {family!r} cannot be used: its problems have no text answer that reasoning-gym scores 1 without "
            f"evaluating it; leave it out"
        )
    raise UserError(
        f"family {family!r} has {found} distinct {side.value} problems that fit at --reasoning_level={level}, "
        f"{required} are needed; request fewer problems, raise --max_prompt_tokens, --max_generator_prompt_tokens or "
        f"--max_answer_tokens, or leave it out"
    )
