"""Input checks of experiments.audit and experiments.solve, which need no process."""

import pytest

from mass_jax.audit import log
from tests.commands import in_process


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("solve", ["--model=tiny", "--problem=x", "--policy=nowhere.json"], "policy nowhere.json does not exist"),
        ("audit", ["verfy", "--log=x"], "did you mean 'verify'?"),
        ("audit", ["show", "--log=nowhere.jsonl"], "cannot be read"),
    ],
)
def test_commands_report_errors_in_one_line(module, arguments, message):
    done = in_process(module, *arguments)
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
def test_audit_reports_unusable_records(small_log, arguments, message):
    done = in_process("audit", *arguments, f"--log={small_log}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().split("\n")[-1].startswith(f"error: {message}")


def test_report_names_unwritable_page(tmp_path):
    with log.EventLog(tmp_path / "log.jsonl") as opened:
        opened.append({"kind": "run"})
    done = in_process("audit", "report", f"--log={tmp_path / 'log.jsonl'}", "--out=/dev/null/page.html")
    assert done.returncode == 2
    assert done.stderr.strip().split("\n")[-1].startswith("error: --out=/dev/null/page.html cannot be written")
