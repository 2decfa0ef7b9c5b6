"""Sends random texts through every reader of model text and reports how long each reader takes.

    python -m experiments.fuzz --texts=100000 --out=runs/fuzz

Texts are prose, boxed prose, LaTeX, brackets, digits, exponents, Unicode, fragments of the readers' own patterns, cut
JSON, chat markup and long tokens, of up to 100,000 characters. Every text must come back from every reader with a
verdict, an example or a reason, within --max_ms of the caller's CPU time, and no answer may be right, since the gold
answers occur in no text. Of the answers that need a verifier process, a share (--worker_share) is sent to one, and each
of these must have a verdict in the end; the others count as "left to a worker".

OUT/fuzz.json holds the figures of each reader and OUT/violations the texts that broke a rule; the status is then 1.
"""

import collections
import contextlib
import dataclasses
import gc
import json
import pathlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, TimeoutError
from typing import Any

from absl import flags

from experiments import settings
from experiments.fuzz_readers import LEFT, Reader, make_readers
from experiments.fuzz_texts import KINDS, make_text
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.tasks.base import Verdict
from mass_jax.tasks.math import Pool

FLAGS = flags.FLAGS
STUCK_SECONDS = 20
WORKER_SECONDS = 600
TRIES = 3  # of a text that took too long: the least counts, since other programs use the machine too
MAX_SAVED = 20
DEPTH = 200  # frames that a caller may already have on its stack


class Stuck(BaseException):
    """A reader did not return; not an `Exception`, so that no reader catches it."""


@dataclasses.dataclass
class Figures:
    """What is known of one reader."""

    texts: int = 0
    lost: int = 0
    slow: int = 0
    accepted: int = 0
    slowest_ms: float = 0.0
    slowest_kind: str = ""
    slowest_text: int = -1
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


class SomeToWorkers:
    """Stands in for a `Pool`: passes on a share of what it is asked, and remembers what to wait for."""

    def __init__(self, pool: Pool | None, share: float):
        self._pool, self._share, self._owed = pool, share, 0.0
        self.pending: list[tuple[str, Future[Verdict]]] = []
        self.left = 0

    def submit(self, gold: str, answer: str) -> "Future[Verdict] | None":
        self._owed += self._share
        if self._pool is None or self._owed < 1:
            self.left += 1
            return None
        self._owed -= 1
        future = self._pool.submit(gold, answer)
        self.pending.append((answer, future))
        return future


@contextlib.contextmanager
def stuck_after(seconds: int) -> Iterator[None]:
    """Raises `Stuck` in the block after so many seconds; `re` looks for signals too, so it can be left."""

    def leave(*_: object) -> None:
        raise Stuck

    before = signal.signal(signal.SIGALRM, leave)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def measure(reader: Reader, text: str, max_ms: float, stuck_seconds: int = STUCK_SECONDS) -> tuple[str, float]:
    """What became of a text, and the least milliseconds of this thread's CPU time among up to `TRIES`."""
    least, outcome = float("inf"), ""
    for _ in range(TRIES):
        began = time.thread_time()
        try:
            with stuck_after(stuck_seconds):
                outcome = _from_depth(DEPTH, reader, text)
        except Stuck:
            return "stuck", 1000.0 * stuck_seconds
        except Exception as error:  # readers never raise on text: this one is lost
            outcome = f"lost: {type(error).__name__}: {error}"[:200]
        if "the gate failed" in outcome:
            outcome = f"lost: {outcome}"
        least = min(least, 1000 * (time.thread_time() - began))
        if least <= max_ms:
            break
    return outcome, least


def _from_depth(frames: int, reader: Reader, text: str) -> str:
    """Calls a reader from so many frames down, where what recurses once for each character fails."""
    return reader(text) if frames == 0 else _from_depth(frames - 1, reader, text)


def run(
    texts: int, seed: int, max_ms: float, pool: SomeToWorkers, out: pathlib.Path, figures: dict[str, Figures], stop: Any
) -> None:
    """Sends texts through all readers, waits for what workers were asked, and fills in `figures` on the way."""
    readers = make_readers(pool)
    figures |= {name: Figures() for name in readers}
    for reader in readers.values():
        reader("The answer is 12.")  # what is loaded or compiled at first use is no text's fault
    gc.collect()
    gc.freeze()
    for number, show in runtime.progress("texts", 0, texts):
        kind, text = make_text(seed, number)
        for name, reader in readers.items():
            outcome, spent = measure(reader, text, max_ms)
            if bad := _note(figures[name], outcome, spent, max_ms, kind, number):
                _save(out, f"{number}-{name.replace(' ', '_')}-{bad}", text)
        show(slowest_ms=max(each.slowest_ms for each in figures.values()))
        stop.poll()
    figures["workers"] = _await(pool, out)


def _note(known: Figures, outcome: str, spent: float, max_ms: float, kind: str, number: int) -> str:
    """Adds one outcome to the figures; returns the rule that it breaks, or ""."""
    known.texts += 1
    known.outcomes[outcome] += 1
    if spent > known.slowest_ms:
        known.slowest_ms, known.slowest_kind, known.slowest_text = spent, kind, number
    bad = "lost" if outcome.startswith("lost") else "slow" if spent > max_ms else ""
    bad = bad or ("accepted" if outcome == Verdict.RIGHT.value else "")
    if bad:
        setattr(known, bad, getattr(known, bad) + 1)
    return bad


def _await(pool: SomeToWorkers, out: pathlib.Path) -> Figures:
    """Verdicts of the workers; one that never comes is lost."""
    known = Figures()
    deadline = time.monotonic() + WORKER_SECONDS
    for number, (answer, future) in enumerate(pool.pending):
        try:
            outcome = future.result(max(1.0, deadline - time.monotonic())).value
        except TimeoutError:
            outcome = "lost: no verdict"
        except RuntimeError as error:
            outcome = f"lost: {error}"
        if bad := _note(known, outcome, 0.0, 1.0, "", number):
            _save(out, f"worker{number}-{bad}", answer)
    known.outcomes[LEFT] = pool.left
    return known


def _save(out: pathlib.Path, name: str, text: str) -> None:
    directory = out / "violations"
    directory.mkdir(parents=True, exist_ok=True)
    if sum(1 for _ in directory.iterdir()) < MAX_SAVED:
        (directory / f"{name}.txt").write_text(text, encoding="utf-8", errors="surrogatepass")


def table(figures: dict[str, Figures]) -> str:
    """The figures as a Markdown table."""
    lines = ["| reader | texts | slowest, ms | kind, text | slow | lost | accepted |", "|---|---|---|---|---|---|---|"]
    for name, f in figures.items():
        where = f"{f.slowest_kind} {f.slowest_text}" if f.slowest_kind else ""
        lines.append(f"| {name} | {f.texts} | {f.slowest_ms:.1f} | {where} | {f.slow} | {f.lost} | {f.accepted} |")
    return "\n".join(lines)


def fuzz(stop: runtime.Stop) -> None:
    """The whole command."""
    if FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=runs/fuzz")
    out = pathlib.Path(FLAGS.out).expanduser()
    figures: dict[str, Figures] = {}
    with Pool(FLAGS.workers) as pool:
        some = SomeToWorkers(pool, FLAGS.worker_share)
        try:
            run(FLAGS.texts, FLAGS.seed, FLAGS.max_ms, some, out, figures, stop)
        finally:
            report(out, figures)
    if broken := sum(f.slow + f.lost + f.accepted for f in figures.values()):
        print(f"{broken} violations; the first {MAX_SAVED} texts are in {out / 'violations'}")
        raise SystemExit(1)


def report(out: pathlib.Path, figures: dict[str, Figures]) -> None:
    """Writes and prints what is known, also after an interruption."""
    settings_used = {name: FLAGS[name].value for name in ("texts", "seed", "max_ms", "worker_share")}
    readers = {n: {**dataclasses.asdict(f), "outcomes": dict(f.outcomes.most_common(12))} for n, f in figures.items()}
    result = {**settings_used, "kinds": list(KINDS), "readers": readers}
    runtime.write_atomically(out / "fuzz.json", json.dumps(result, indent=1) + "\n")
    print(table(figures))


def main(_: list[str]) -> None:
    settings.guarded(fuzz)


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "Directory for the figures and the texts that break a rule.")
    flags.DEFINE_integer("texts", 100_000, "Texts in all.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the texts.")
    flags.DEFINE_float("max_ms", 50.0, "CPU milliseconds of the caller that a reader may spend on one text.")
    flags.DEFINE_float("worker_share", 0.01, "Share of the undecided answers that verifier processes get.", 0.0, 1.0)
    flags.DEFINE_integer("workers", 1, "Verifier processes.", lower_bound=1)
    settings.run(main)
