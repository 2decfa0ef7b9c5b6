"""Load-tests experiments.serve: concurrent clients ask until they have an answer, while the server is killed.

    python -m experiments.stress.serve_load --out=runs/serve                (1,000 questions, 32 clients, 10 minutes)
    python -m experiments.stress.serve_load --out=runs/serve --restarts=0   (without kills)

Restarts are kills (SIGKILL), and every fifth is a stop (SIGTERM). Half of them hit a batch, the others the moment at
which its answers are released. After each, the audit log is compared with its earlier state; at the end, every released
answer is compared with its event. Writes load.json, or load_restarts.json, with latency and throughput.
"""

import collections
import concurrent.futures
import contextlib
import functools
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.audit import log
from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.serving.guards.policy import Policy
from mass_jax.serving.web import server

FLAGS = flags.FLAGS
MOST_WAIT = 2.0  # seconds between two tries, to keep the load high
DEADLINE = 600.0  # seconds for one question, and for the end of a process


class Question(NamedTuple):
    """A question of the load test."""

    id: str
    problem: str


class Released(NamedTuple):
    """An answer that a client got.

    Attributes:
        question: the question.
        answer: the answer as sent by the server.
        seconds: time from the first try to the answer.
        tries: outcomes of the tries before, such as "429" or "broken".
    """

    question: Question
    answer: Mapping[str, Any]
    seconds: float
    tries: Sequence[str]


def ask(port: int, question: Question) -> Released:
    """Asks until the server answers.

    Raises:
        RuntimeError: the request is refused for good, or no answer arrives within `DEADLINE`.
    """
    began, tries = time.monotonic(), list[str]()
    while time.monotonic() < began + DEADLINE:
        try:
            status, wait, body = _post(port, question)
        except (OSError, http.client.HTTPException):
            tries.append("broken")
            time.sleep(0.5)
            continue
        if status == 200:
            kind, answer = _last_event(body)
            if kind == "answer":
                return Released(question, answer, time.monotonic() - began, tries)
            tries.append(kind)
        elif status in (409, 429, 503):
            tries.append(str(status))
            time.sleep(min(wait, MOST_WAIT))
        else:
            raise RuntimeError(f"question {question.id} got status {status}: {body[:200]!r}")
    raise RuntimeError(f"question {question.id} was not answered within {DEADLINE:g} s")


def _post(port: int, question: Question) -> tuple[int, float, bytes]:
    """Returns status, Retry-After in seconds, and body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        body = json.dumps(question._asdict())
        connection.request("POST", "/v1/answers", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, float(response.headers.get("retry-after", 1)), response.read()


def _last_event(body: bytes) -> tuple[str, Any]:
    """Returns name and data of the last server-sent event."""
    *_, name, data = body.decode().strip().split("\n")
    return name.removeprefix("event: "), jsonl.loads(data.removeprefix("data: "))


def ask_all(
    port: int, questions: Sequence[Question], clients: int, on_answer: Callable[[int], None] = lambda _: None
) -> list[Released]:
    """Asks all questions from concurrent clients.

    Args:
        port: port of the server.
        questions: the questions.
        clients: number of clients, each of which waits for its answer before it asks again.
        on_answer: called with the number of answers so far.
    """
    released = []
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for done in concurrent.futures.as_completed([pool.submit(ask, port, question) for question in questions]):
            released.append(done.result())
            on_answer(len(released))
    return released


def lost(path: pathlib.Path, before: Sequence[str]) -> tuple[int, list[str]]:
    """Verifies the log; returns how many earlier records are missing, and the hashes of all records."""
    now = [record["hash"] for record, _ in log.records(path)]
    return sum(a != b for a, b in zip(before, now, strict=False)) + max(len(before) - len(now), 0), now


def check(path: pathlib.Path, released: Sequence[Released]) -> dict[str, Any]:
    """Verifies the log and compares every released answer with its event."""
    events, kinds = {}, collections.Counter[str]()
    for record, _ in log.records(path):
        kinds[record["kind"]] += 1
        if record["kind"] == "adaptation":
            events[f"{record['number']}:{record['hash']}"] = record
    without = 0
    for question, answer, *_ in released:
        event = events.get(answer["event"], {})
        found = tuple(event.get(key) for key in ("question", "problem", "answer", "before"))
        without += found != (question.id, question.problem, answer["text"], answer["before"])
    asked = collections.Counter(event["question"] for event in events.values())
    return {
        "released": len(released),
        "released_without_event": without,
        "released_from_earlier_event": sum(answer.answer["recorded"] for answer in released),
        "events": len(events),
        "questions_with_two_events": sum(count > 1 for count in asked.values()),
        "decisions": dict(collections.Counter(event["decision"] for event in events.values())),
        "unanswered": kinds["unanswered"],
        "repairs": kinds["repair"],
        "verified": not log.verify(path).notes,
    }


def speed(released: Sequence[Released], seconds: float) -> dict[str, Any]:
    """Returns throughput, and percentiles of the time that clients waited, retries included."""
    waited = np.array([answer.seconds for answer in released])
    quantiles = dict(zip(("p50", "p95", "p99", "max"), np.quantile(waited, [0.5, 0.95, 0.99, 1]), strict=True))
    return {
        "seconds": round(seconds, 1),
        "answers_per_second": round(len(released) / seconds, 2),
        "latency_seconds": {name: round(float(value), 3) for name, value in quantiles.items()},
        "tries_before": dict(collections.Counter(outcome for answer in released for outcome in answer.tries)),
    }


class ServerProcess:
    """A process of experiments.serve that can be restarted on its port.

    Args:
        where: directory of the policy, the log, compiled programs and messages.
        arguments: further flags.
    """

    def __init__(self, where: pathlib.Path, arguments: Sequence[str]):
        runtime.write_atomically(where / "policy.json", Policy().to_json())
        with server.listen("127.0.0.1", 0) as free:
            self.port = free.getsockname()[1]
        self.log = where / "events.jsonl"
        self._command = [sys.executable, "-m", "experiments.serve", f"--port={self.port}", f"--log={self.log}"]
        self._command += [f"--policy={where / 'policy.json'}", *arguments]
        self._environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(where / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._messages = where / "messages.txt"
        self.start()

    def start(self) -> None:
        """Starts the process and waits until it listens."""
        with self._messages.open("ab") as messages:
            piped: dict[str, Any] = {"env": self._environment, "stdout": subprocess.PIPE, "stderr": messages}
            self._process = subprocess.Popen(self._command, **piped)
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith(b"serving "):
            raise UserError(f"experiments.serve did not start; see {self._messages}")

    def end(self, signum: signal.Signals) -> int:
        """Sends a signal and returns the exit status; a process that does not end in time is killed."""
        self._process.send_signal(signum)
        try:
            self._process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        return self._process.returncode


def wait_for_growth(path: pathlib.Path, ended: threading.Event) -> None:
    """Waits until events are appended to the log, or the test has ended."""
    size = path.stat().st_size
    while path.stat().st_size < size + 4000 and not ended.wait(0.001):  # more than a grant
        pass


def load_test(where: pathlib.Path, arguments: Sequence[str], count: int, clients: int, restarts: int) -> dict[str, Any]:
    """Runs the load test and returns its results."""
    rng = random.Random("mass serve load")
    questions = [
        Question(f"q{i}", f"{rng.randrange(10)} {rng.choice(['kabo', 'lepa'])} {i % 10}") for i in range(count)
    ]
    moments = sorted(rng.sample(range(count // 20, count), restarts))
    answered, ended, counts, process = (
        [0],
        threading.Event(),
        collections.Counter[str](),
        ServerProcess(where, arguments),
    )

    def restart() -> None:
        before: list[str] = []
        for i, moment in enumerate(moments):
            while answered[0] < moment and not ended.wait(0.01):
                pass
            if i % 2:  # while a batch is being answered
                time.sleep(random.Random(i).uniform(0, 0.5))
            else:  # while its events are being written or its answers released
                wait_for_growth(process.log, ended)
                time.sleep(random.Random(i).uniform(0, 0.02))
            signum = signal.SIGTERM if i % 5 == 4 else signal.SIGKILL
            status = process.end(signum)
            counts[signum.name] += 1
            counts["other_exit_status"] += status != (0 if signum == signal.SIGTERM else -signal.SIGKILL)
            missing, before = lost(process.log, before)
            counts["events_lost"] += missing
            process.start()

    first = ask(process.port, Question("first", "1 kabo 1"))  # compiles
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        restarting = pool.submit(restart)
        try:
            released = ask_all(process.port, questions, clients, functools.partial(answered.__setitem__, 0))
        finally:
            ended.set()
        seconds = time.monotonic() - began
        restarting.result()
    counts["other_exit_status"] += process.end(signal.SIGTERM) != 0
    found = check(process.log, [first, *released])
    restarted = {name: counts[name] for name in ("SIGKILL", "SIGTERM", "other_exit_status", "events_lost")}
    return {"questions": count, "clients": clients, "restarts": restarted} | speed(released, seconds) | found


def main(_: Sequence[str]) -> None:
    """Runs the command."""
    settings.guarded(run)


def run(_: runtime.Stop) -> None:
    """Writes the results to --out; OUT/serve_load.partial has the files of the run until its end."""
    out = pathlib.Path(FLAGS.out)
    where = (out / "serve_load.partial").absolute()
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    name = "workdir" if (pathlib.Path(FLAGS.model) / "seed0").is_dir() else "model"
    arguments = [f"--{name}={FLAGS.model}", f"--batch={FLAGS.batch}", f"--queue={FLAGS.queue}"]
    found = load_test(where, arguments, FLAGS.questions, FLAGS.clients, FLAGS.restarts)
    found = {"model": pathlib.Path(FLAGS.model).name, "batch": FLAGS.batch, "queue": FLAGS.queue} | found
    text = json.dumps(found, indent=1) + "\n"
    runtime.write_atomically(out / ("load_restarts.json" if FLAGS.restarts else "load.json"), text)
    shutil.rmtree(where)
    print(text, end="")


def define() -> None:
    """Defines the flags of this command."""
    DEFINE_path("model", "tiny", "'tiny', or a workdir of experiments.train with the testbed.")
    DEFINE_path("out", "runs/serve", "Directory of the results.")
    flags.DEFINE_integer("questions", 1000, "Number of questions.", lower_bound=20)
    flags.DEFINE_integer("clients", 32, "Number of concurrent clients.", lower_bound=1)
    flags.DEFINE_integer("restarts", 10, "Number of kills and stops.", lower_bound=0)
    flags.DEFINE_integer("batch", 16, "--batch of the server.", lower_bound=1)
    flags.DEFINE_integer("queue", 64, "--queue of the server.", lower_bound=1)


if __name__ == "__main__":
    define()
    logging.set_verbosity(logging.WARNING)
    settings.run(main)
