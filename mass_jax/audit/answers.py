"""Answer files: one JSON line per answer; a line that a crash cut off is removed and the question asked again."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.tasks.base import Problem

_TEXTS = ("id", "problem", "decision", "request")
_OPENING = b'{"id": "'  # of every answer


class AnswerFile(contextlib.AbstractContextManager):
    """Appends answers to a JSONL file, locked against other writers.

    Args:
        path: the file; created if missing, with its directory.

    Attributes:
        done: (problem, request) of each answer in the file, by id.

    Raises:
        UserError: another process writes the file, or it holds anything other than answers.
    """

    def __init__(self, path: pathlib.Path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b", 0)
        except OSError as error:
            raise UserError(f"--out={path} cannot be written ({error.strerror}); choose another") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.done = self._read(path)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"another run is writing --out={path}; choose another file, or wait") from None
        except UserError:
            self._file.close()
            raise

    def _read(self, path: pathlib.Path) -> dict[str, tuple[str, str]]:
        """Answers in the file; only an incomplete last line is cut off."""
        whole = 0
        done = {}
        with open(os.dup(self._file.fileno()), "rb") as reader:
            reader.seek(0)
            for line in reader:
                try:
                    row = _answer_in(line)
                except ValueError:
                    raise UserError(f"--out={path} holds lines other than answers; choose another file") from None
                if row is None:
                    break
                done[row["id"]] = (row["problem"], row["request"])
                whole += len(line)
        os.ftruncate(self._file.fileno(), whole)
        return done

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def left(self, questions: Sequence[Problem], request: Callable[[str, str], str]) -> list[Problem]:
        """Returns the questions without an answer.

        Args:
            questions: all questions.
            request: maps id and problem to `AdaptationService.request`.

        Raises:
            UserError: the file holds an answer to another problem with the same id, or one made with other settings.
        """
        for question in questions:
            problem, asked = self.done.get(question.id, (question.problem, None))
            if problem != question.problem:
                raise UserError(f"--out has an answer to another problem with id {question.id!r}; choose another --out")
            if asked is not None and asked != request(question.id, problem):
                raise UserError(
                    f"--out has an answer to {question.id!r} with another model, log, policy, seed or other setting; "
                    f"choose another --out"
                )
        return [question for question in questions if question.id not in self.done]

    def write(self, answer: Any) -> None:
        """Appends one answer, given as a dataclass."""
        line = memoryview(as_line(answer).encode())
        while line:
            line = line[self._file.write(line) :]


def _answer_in(line: bytes) -> dict[str, Any] | None:
    """The answer in a line; None for an incomplete one.

    Raises:
        ValueError: the line is not an answer; a question, for example, has no decision.
    """
    whole = line.endswith(b"\n")
    try:
        row = jsonl.loads(line)
    except jsonl.BadJson:
        if not whole and _OPENING.startswith(line[: len(_OPENING)]):
            return None
        raise ValueError("not an answer") from None
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in _TEXTS):
        raise ValueError("not an answer")
    return row if whole else None


def as_line(answer: Any) -> str:
    """Returns an answer, given as a dataclass, as one JSON line."""
    return jsonl.dumps(dataclasses.asdict(answer))
