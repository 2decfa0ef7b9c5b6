"""Fuzzes every function that parses model output ("reader") with random texts, and measures the time of each.

    python -m experiments.stress.fuzz --texts=100000 --out=runs/fuzz

Texts are prose, boxed prose, LaTeX, brackets, digits, exponents, Unicode, fragments of the readers' own patterns,
truncated JSON, chat markup and long tokens, with up to 100,000 characters. For every text, every reader must return a
verdict, an example or a reason within --max_ms of the caller's CPU time. No answer may be graded as correct, since no
text contains a gold answer. Of the answers that need a verifier process, a share (--worker_share) is sent to one, and
must receive a verdict; the others count as "left to a worker".

OUT/fuzz.json contains the results of each reader, and OUT/violations the texts that violate a rule. The exit status is
1 if there are violations.
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
from experiments.path_flags import DEFINE_path
from experiments.stress.fuzz_readers import LEFT, Reader, make_readers
from experiments.stress.fuzz_texts import KINDS, make_text
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.tasks.base import Verdict
from mass_jax.tasks.math import Pool

FLAGS = flags.FLAGS
STUCK_SECONDS = 20
WORKER_SECONDS = 600
TRIES = 3  # attempts for a slow text; the minimum counts, since other programs may use the machine
MAX_SAVED = 20
DEPTH = 200  # stack frames of a typical caller


class Stuck(BaseException):
    """Raised when a reader does not return. Not an `Exception`, so that readers do not catch it."""


@dataclasses.dataclass
class Figures:
    """Results of one reader.

    Attributes:
        texts: Number of texts.
        lost: Number of texts on which the reader raised or hung.
        slow: Number of texts over the time limit.
        accepted: Number of texts graded as correct.
        slowest_ms: CPU time of the slowest text in milliseconds.
        slowest_kind: Kind of the slowest text.
        slowest_text: Number of the slowest text.
        outcomes: Count of each outcome.
    """

    texts: int = 0
    lost: int = 0
    slow: int = 0
    accepted: int = 0
    slowest_ms: float = 0.0
    slowest_kind: str = ""
    slowest_text: int = -1
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


class SomeToWorkers:
    """Replacement for a `Pool` that forwards only a share of the requests.

    Args:
        pool: The pool, or None to forward nothing.
        share: Share of the requests to forward, in [0, 1].

    Attributes:
        pending: Forwarded answers with the futures of their verdicts.
        left: Number of requests that were not forwarded.
    """

    def __init__(self, pool: Pool | None, share: float):
        self._pool, self._share, self._owed = pool, share, 0.0
        self.pending: list[tuple[str, Future[Verdict]]] = []
        self.left = 0

    def submit(self, gold: str, answer: str) -> "Future[Verdict] | None":
        """Forwards a request to the pool, or returns None."""
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
    """Raises `Stuck` in the block after some seconds; this also interrupts `re`, which checks for signals."""

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
    """Measures a reader on one text.

    Args:
        reader: The reader.
        text: The text.
        max_ms: CPU time in milliseconds above which the measurement is repeated, up to `TRIES` times.
        stuck_seconds: Wall-clock seconds after which the reader is interrupted.

    Returns:
        The outcome, and the minimum CPU time of this thread in milliseconds.
    """
    least, outcome = float("inf"), ""
    for _ in range(TRIES):
        began = time.thread_time()
        try:
            with stuck_after(stuck_seconds):
                outcome = _from_depth(DEPTH, reader, text)
        except Stuck:
            return "stuck", 1000.0 * stuck_seconds
        except Exception as error:  # readers must never raise
            outcome = f"lost: {type(error).__name__}: {error}"[:200]
        if "the gate failed" in outcome:
            outcome = f"lost: {outcome}"
        least = min(least, 1000 * (time.thread_time() - began))
        if least <= max_ms:
            break
    return outcome, least


def _from_depth(frames: int, reader: Reader, text: str) -> str:
    """Calls a reader below some stack frames, so that recursion per character fails."""
    return reader(text) if frames == 0 else _from_depth(frames - 1, reader, text)


def run(
    texts: int, seed: int, max_ms: float, pool: SomeToWorkers, out: pathlib.Path, figures: dict[str, Figures], stop: Any
) -> None:
    """Fuzzes all readers and waits for the workers' verdicts.

    Args:
        texts: Number of texts.
        seed: Random seed of the texts.
        max_ms: CPU time in milliseconds that a reader may take for one text.
        pool: Receives the answers that need a worker.
        out: Directory for texts that violate a rule.
        figures: Results by reader, filled in during the run.
        stop: Polled after every text.
    """
    readers = make_readers(pool)
    figures |= {name: Figures() for name in readers}
    for reader in readers.values():
        reader("The answer is 12.")  # warm-up, so that lazy imports and compilation are not measured
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
    """Adds one outcome to the results; returns the violated rule, or ""."""
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
    """Waits for the workers' verdicts; missing ones count as lost."""
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
    """Formats the results as a Markdown table."""
    lines = ["| reader | texts | slowest, ms | kind, text | slow | lost | accepted |", "|---|---|---|---|---|---|---|"]
    for name, f in figures.items():
        where = f"{f.slowest_kind} {f.slowest_text}" if f.slowest_kind else ""
        lines.append(f"| {name} | {f.texts} | {f.slowest_ms:.1f} | {where} | {f.slow} | {f.lost} | {f.accepted} |")
    return "\n".join(lines)


def fuzz(stop: runtime.Stop) -> None:
    """Runs the command."""
    if FLAGS.out is None:
        raise UserError("--out is missing; set it to a directory, such as --out=runs/fuzz")
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
    """Writes and prints the results, also those of an interrupted run."""
    settings_used = {name: FLAGS[name].value for name in ("texts", "seed", "max_ms", "worker_share")}
    readers = {n: {**dataclasses.asdict(f), "outcomes": dict(f.outcomes.most_common(12))} for n, f in figures.items()}
    result = {**settings_used, "kinds": list(KINDS), "readers": readers}
    runtime.write_atomically(out / "fuzz.json", json.dumps(result, indent=1) + "\n")
    print(table(figures))


def main(_: list[str]) -> None:
    settings.guarded(fuzz)


if __name__ == "__main__":
    DEFINE_path("out", None, "Directory for the results and the texts that violate a rule.")
    flags.DEFINE_integer("texts", 100_000, "Number of texts.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Random seed of the texts.")
    flags.DEFINE_float("max_ms", 50.0, "CPU milliseconds of the caller that a reader may take for one text.")
    flags.DEFINE_float("worker_share", 0.01, "Share of the undecided answers sent to verifier processes.", 0.0, 1.0)
    flags.DEFINE_integer("workers", 1, "Number of verifier processes.", lower_bound=1)
    settings.run(main)
