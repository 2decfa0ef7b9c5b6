"""The commands as a user runs them: real processes, killed and resumed, and the page in a real browser."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mass_jax.audit import log
from mass_jax.audit.chain import Broken
from mass_jax.audit.log_page import write_page
from mass_jax.serving.guards.policy import Policy

QUESTIONS = 40


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Processes of this module share compiled code, which changes no number."""
    cache = str(tmp_path_factory.mktemp("compiled"))
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module")
def killed(environment, tmp_path_factory):
    """A run that was killed once it had recorded something, and then given again."""
    where = tmp_path_factory.mktemp("solve")
    (where / "policy.json").write_text(Policy().to_json())
    rows = [{"id": f"q{i}", "problem": f"{i % 10} kabo {i // 10}"} for i in range(QUESTIONS)]
    (where / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "experiments.solve", "--model=tiny", "--batch=2", f"--input={where / 'in.jsonl'}"]
    command += [f"--policy={where / 'policy.json'}", f"--log={where / 'log.jsonl'}", f"--out={where / 'out.jsonl'}"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 400
        while not (where / "log.jsonl").exists() or (where / "log.jsonl").stat().st_size < 30_000:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "no event"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    events = [record for record, _ in log.records(where / "log.jsonl") if record["kind"] == "adaptation"]
    (where / "before.json").write_text(json.dumps([event["hash"] for event in events]))
    answers = answers_in(where / "out.jsonl")
    assert {answer["event"] for answer in answers} <= {event["number"] for event in events}
    assert 0 < len(events) < QUESTIONS
    with (where / "out.jsonl").open("ab") as file:
        file.write(b'{"id": "q7", "prob')  # a kill in the middle of an answer
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return where


def answers_in(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def test_a_killed_run_goes_on_and_loses_nothing(killed):
    assert log.verify(killed / "log.jsonl").notes == []
    events = {record["number"]: record for record, _ in log.records(killed / "log.jsonl")}
    adaptations = [event for event in events.values() if event["kind"] == "adaptation"]
    answers = answers_in(killed / "out.jsonl")
    assert sorted(answer["id"] for answer in answers) == sorted(f"q{i}" for i in range(QUESTIONS))
    for answer in answers:
        event = events[answer["event"]]
        assert (event["question"], event["answer"], event["decision"]) == (
            answer["id"],
            answer["text"],
            answer["decision"],
        )
    assert len(adaptations) == QUESTIONS  # what the log held was released, and not done again
    before = json.loads((killed / "before.json").read_text())
    assert set(before) <= {event["hash"] for event in adaptations}


def audit(environment, *arguments):
    command = [sys.executable, "-m", "experiments.audit", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)


def test_an_event_is_made_again_by_a_process_that_did_not_make_it(killed, environment, tmp_path):
    path = killed / "log.jsonl"
    event = next(record for record, _ in log.records(path) if record.get("adapter"))
    done = audit(
        environment, "export", str(event["number"]), f"--log={path}", "--model=tiny", f"--out={tmp_path / 'peft'}"
    )
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "peft").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_command_finds_an_edit(killed, environment, tmp_path):
    for name in ("log.jsonl", "log.jsonl.head"):
        shutil.copy(killed / name, tmp_path / name)
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"decision":"adapted"', b'"decision":"refused"', 1))
    done = audit(environment, "verify", f"--log={path}")
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    with pytest.raises(Broken):
        write_page(path, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("solve", ["--model=tiny", "--problem=x", "--policy=nowhere.json"], "there is no policy nowhere.json"),
        ("audit", ["verfy", "--log=x"], "did you mean 'verify'?"),
        ("audit", ["show", "--log=nowhere.jsonl"], "cannot be read"),
    ],
)
def test_mistakes_cost_one_line(environment, module, arguments, message):
    command = [sys.executable, "-m", f"experiments.{module}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    line = done.stderr.strip().split("\n")[-1]
    assert line.startswith("error: ")
    assert message in line
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_log(tmp_path):
    """A run, and an event of a task that no model has as its own."""
    event = {"kind": "adaptation", "adapter": "0" * 64, "task": "Sums", "problem": "4 + 3"}
    with log.EventLog(tmp_path / "log.jsonl") as opened:
        opened.append({"kind": "run"}, event)
    return tmp_path / "log.jsonl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "1", "--model=tiny"], "record 1 made no adapter: it is run"),
        (["replay", "2", "--model=tiny"], "record 2 is of task 'Sums'"),
        (["replay", "2", "1"], "unexpected argument '1'; replay takes one EVENT"),
        (["verify", "1"], "unexpected argument '1'; verify takes none"),
    ],
)
def test_what_cannot_be_done_with_a_record_costs_one_line(small_log, environment, arguments, message):
    done = audit(environment, *arguments, f"--log={small_log}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().split("\n")[-1].startswith(f"error: {message}")


def test_a_page_that_cannot_be_written_costs_one_line(environment, tmp_path):
    with log.EventLog(tmp_path / "log.jsonl") as opened:
        opened.append({"kind": "run"})
    done = audit(environment, "report", f"--log={tmp_path / 'log.jsonl'}", "--out=/dev/null/page.html")
    assert done.returncode == 2
    assert done.stderr.strip().split("\n")[-1].startswith("error: --out=/dev/null/page.html cannot be written")


CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to show the page in")
def test_the_page_in_a_browser(killed, tmp_path):
    """All events are in the document that the browser built, and nothing but them."""
    path = tmp_path / "page.html"
    shown = write_page(killed / "log.jsonl", path)
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True)
    assert shown == QUESTIONS
    assert done.stdout.count("<summary>") == QUESTIONS
    assert done.stdout.count("<polyline") >= QUESTIONS // 2
    assert "<script" not in done.stdout
    assert pathlib.Path(path).stat().st_size < 2_000_000
