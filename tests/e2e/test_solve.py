"""The solve and audit commands as processes: killed and resumed, with the page in a browser."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments import audit as audit_command
from mass_jax.audit import log
from mass_jax.audit.chain import Broken
from mass_jax.audit.log_page import write_page
from mass_jax.serving.guards.policy import Policy

QUESTIONS = 40


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment with a compilation cache shared by the processes of this module."""
    cache = str(tmp_path_factory.mktemp("compiled"))
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module")
def killed(environment, tmp_path_factory):
    """Directory of a run that was killed after its first events and then rerun."""
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
        file.write(b'{"id": "q7", "prob')  # as if killed in the middle of an answer
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    return where


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


def audit(environment, *arguments):
    command = [sys.executable, "-m", "experiments.audit", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)


def test_export_replays_event_of_another_process(killed, environment, tmp_path):
    path = killed / "log.jsonl"
    event = next(record for record, _ in log.records(path) if record.get("adapter"))
    done = audit(
        environment, "export", str(event["number"]), f"--log={path}", "--model=tiny", f"--out={tmp_path / 'peft'}"
    )
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "peft").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_export_copies_tokenizer_files(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for directory in (source, target):
        directory.mkdir()
    present = ["chat_template.jinja", "generation_config.json", "tokenizer.json"]
    for name in [*present, "model.safetensors"]:
        (source / name).write_text(name)
    audit_command.copy_tokenizer(source, target)
    assert sorted((file.name, file.read_text()) for file in target.iterdir()) == [(name, name) for name in present]


def test_verify_command_detects_an_edit(killed, environment, tmp_path):
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
        ("solve", ["--model=tiny", "--problem=x", "--policy=nowhere.json"], "policy nowhere.json does not exist"),
        ("audit", ["verfy", "--log=x"], "did you mean 'verify'?"),
        ("audit", ["show", "--log=nowhere.jsonl"], "cannot be read"),
    ],
)
def test_commands_report_errors_in_one_line(environment, module, arguments, message):
    command = [sys.executable, "-m", f"experiments.{module}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    line = done.stderr.strip().split("\n")[-1]
    assert line.startswith("error: ")
    assert message in line
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_log(tmp_path):
    """A log with a run and an event of a task that no model has."""
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
def test_audit_reports_unusable_records(small_log, environment, arguments, message):
    done = audit(environment, *arguments, f"--log={small_log}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().split("\n")[-1].startswith(f"error: {message}")


def test_report_names_unwritable_page(environment, tmp_path):
    with log.EventLog(tmp_path / "log.jsonl") as opened:
        opened.append({"kind": "run"})
    done = audit(environment, "report", f"--log={tmp_path / 'log.jsonl'}", "--out=/dev/null/page.html")
    assert done.returncode == 2
    assert done.stderr.strip().split("\n")[-1].startswith("error: --out=/dev/null/page.html cannot be written")


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
