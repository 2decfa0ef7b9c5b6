"""Process that generates problems: `python -m mass_jax.tasks.reasoning.generate`.

It reads a JSON request from stdin, generates, seals itself against evaluation of text, and keeps the problems whose own
answers the sandboxed scorer accepts. The hash seed of the process is fixed, so the problems depend on the request only.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from mass_jax.tasks.grading.workers import limits
from mass_jax.tasks.grading.workers.pool import environment
from mass_jax.tasks.grading.workers.wire import MAX_LINE_BYTES

SECONDS = 600  # limit of one request; a thousand problems of all families take about half a minute
_MAX_ENTRY_BYTES = MAX_LINE_BYTES // 2  # the other half is for the answer


class Range(NamedTuple):
    """Problems to generate: `size` ones from number `first` on, of the generator with this seed."""

    seed: int
    first: int
    size: int


def generate(wanted: Mapping[str, Range], level: str) -> dict[str, Any]:
    """Generates problems in a process of its own.

    Args:
        wanted: Ranges by family.
        level: "easy" or "default"; see `library.dataset`.

    Returns:
        {"families": {name: {"exact": bool, "entries": [[number, entry], ...]}}}, without the entries that cannot be
        scored; or {"unknown": name, "known": names} if the package lacks a family.

    Raises:
        RuntimeError: If the process fails.
        subprocess.TimeoutExpired: If it takes more than `SECONDS`.
    """
    request = {"level": level, "wanted": {family: list(part) for family, part in wanted.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "mass_jax.tasks.reasoning.generate"],
        input=json.dumps(request).encode(),
        capture_output=True,
        env=environment(),
        check=False,
        timeout=SECONDS,
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the process that generates problems failed: {' '.join(last)}")
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def main() -> None:
    """Answers one request."""
    request = json.load(sys.stdin)
    logging.disable()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)  # some generators print
        json.dump(_answer(request), replies)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    from mass_jax.tasks.reasoning import library

    known, wanted, level = library.names(), request["wanted"], request["level"]
    for family in wanted:
        if family not in known:
            return {"unknown": family, "known": known}
    drawn: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for family, (seed, first, size) in wanted.items():
        data = library.dataset(family, level, seed, first + size)
        numbered = ((i, _entry(library, family, data, i)) for i in range(first, first + size))
        drawn[family] = [(i, entry) for i, entry in numbered if entry is not None and _is_short(entry)]
    limits.seal()  # as in the workers
    return {
        "families": {
            family: {
                "exact": (exact := library.is_exact(family)),
                "entries": [pair for pair in pairs if exact or _is_scored(library.score, family, level, pair[1])],
            }
            for family, pairs in drawn.items()
        }
    }


def _entry(library: Any, family: str, data: Any, number: int) -> dict[str, Any] | None:
    """Returns an entry as JSON keeps it; None if that is impossible or the generator gives up."""
    with contextlib.suppress(Exception):  # some generators raise when random tries do not succeed
        entry: dict[str, Any] | None = library.portable(family, data[number])
        return entry
    return None


def _is_short(entry: Mapping[str, Any]) -> bool:
    return len(json.dumps(entry)) <= _MAX_ENTRY_BYTES


def _is_scored(score: Any, family: str, level: str, entry: dict[str, Any]) -> bool:
    """Returns whether the scorer accepts the gold answer inside the sandbox."""
    with contextlib.suppress(Exception):  # a scorer may raise anything, such as the sandbox's PermissionError
        return bool(score(family, level, entry, entry["answer"]) >= 1.0)
    return False


if __name__ == "__main__":
    main()
