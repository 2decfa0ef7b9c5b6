"""The solve and audit commands as processes: killed and resumed, with the page in a browser."""

import json
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from mass_jax.audit import log
from mass_jax.audit.chain import Broken
from mass_jax.audit.log_page import write_page
from mass_jax.serving.guards.policy import Policy
from tests.commands import as_process, command, in_process

QUESTIONS = 16
FILES = {"input": "in.jsonl", "policy": "policy.json", "log": "log.jsonl", "out": "out.jsonl"}


@pytest.fixture(scope="module")
def killed(environment, tmp_path_factory):
    """Directory of a run that was killed after its first events and then rerun."""
    where = tmp_path_factory.mktemp("solve")
    (where / "policy.json").write_text(Policy().to_json())
    rows = [{"id": f"q{i}", "problem": f"{i % 10} kabo {i // 10}"} for i in range(QUESTIONS)]
    (where / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [f"--{name}={where / file}" for name, file in FILES.items()]
    given = ["solve", "--model=tiny", "--batch=2", *flags]
    with subprocess.Popen(command(*given), env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 400
        while not (where / "log.jsonl").exists() or adaptations_in(where / "log.jsonl") < 2:
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
        file.write(b'{"id": "q7", "prob')  # as if killed in the middle of an answer
    done = as_process(*given, env=environment)
    assert done.returncode == 0, done.stderr
    return where


def adaptations_in(path):
    return path.read_bytes().count(b'"kind":"adaptation"')


def answers_in(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def test_killed_run_resumes_without_loss(killed):
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
    assert len(adaptations) == QUESTIONS  # logged answers were reused
    before = json.loads((killed / "before.json").read_text())
    assert set(before) <= {event["hash"] for event in adaptations}


def test_export_replays_event_of_another_process(killed, environment, tmp_path):
    path = killed / "log.jsonl"
    event = next(record for record, _ in log.records(path) if record.get("adapter"))
    flags = [f"--log={path}", "--model=tiny", f"--out={tmp_path / 'peft'}"]
    done = as_process("audit", "export", str(event["number"]), *flags, env=environment)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "peft").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_verify_command_detects_an_edit(killed, tmp_path):
    for name in ("log.jsonl", "log.jsonl.head"):
        shutil.copy(killed / name, tmp_path / name)
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"decision":"adapted"', b'"decision":"refused"', 1))
    done = in_process("audit", "verify", f"--log={path}")
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    with pytest.raises(Broken):
        write_page(path, tmp_path / "page.html")


CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_page_in_a_browser_shows_every_event(killed, tmp_path):
    """The browser's document holds all events and no scripts."""
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
