"""End-to-end tests of experiments.evaluate: costs, a kill in the middle of a row, reports from records alone."""

import json
import shutil
import signal
import subprocess
import time

import pytest

from mass_jax.evaluation.records import read_records
from tests.commands import as_process, command, in_process, locked_elsewhere

ROWS = ["base", "few_shot", "majority", "best_of_n", "ttt_other", "tt_ss"]
SMALL = [
    "--preset=tiny",
    f"--methods={','.join(ROWS)}",
    *"--num_test_examples=2 --eval_batch=4 --num_eval_problems=12 --lora_targets=q_proj".split(),
]


@pytest.fixture(scope="module")
def uninterrupted(environment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    done = as_process("evaluate", *SMALL, f"--workdir={workdir}", env=environment)
    assert done.returncode == 0, done.stderr
    assert "| Few-shot base |" in done.stdout
    return workdir


def records(workdir):
    def timeless(record):
        return {name: value for name, value in record.items() if name != "seconds"}

    paths = sorted((workdir / "seed0" / "evaluation").glob("*.jsonl"))
    return {path.stem: [timeless(record) for record in read_records(path)] for path in paths}


def test_evaluate_records_responses_and_cost(uninterrupted):
    found = records(uninterrupted)
    assert sorted(found) == sorted([*ROWS, "oracle"])
    for rows in found.values():
        assert len({(r["column"], r["id"]) for r in rows}) == len(rows) == 24
        assert all(r["right"] == (r["verdict"] == "right") and r["flops"] > 0 for r in rows)
    base, shots, votes = found["base"][0], found["few_shot"][0], found["majority"]
    assert shots["tokens_read"] == base["tokens_read"] + 2 * (5 + 2)  # two solved problems
    assert all(r["tokens_trained"] > 0 for r in found["ttt_other"])
    for name, rows in found.items():
        assert all("answers_cut_off" in r and ("examples_cut_off" in r) == (name == "tt_ss") for r in rows)
    assert all(r["answers_cut_off"] <= (r["tokens_written"] == 4) for r in found["base"])  # 4 is the limit
    assert 0.8 < sum(r["flops"] for r in votes) / sum(r["flops"] for r in found["tt_ss"]) < 1.2
    assert any(len(r["votes"]) > 1 for r in votes)
    best = found["best_of_n"]
    (samples,) = {r["samples"] for r in best}
    assert samples == max(sum(r["votes"].values()) for r in votes) > 1
    assert sum(r["right"] for r in best) >= sum(r["right"] for r in votes)
    assert sum(r["flops"] for r in best) == pytest.approx(sum(r["flops"] for r in votes), rel=0.2)


def test_ttt_other_excludes_target_subject(uninterrupted):
    domain = json.loads((uninterrupted / "config.json").read_text())
    assert domain["task"] == "testbed"
    from mass_jax.tasks.testbed import Domain
    from mass_jax.training.components import model_directory

    operators = Domain.load(model_directory("tiny") / "domain.json").operators
    for record in records(uninterrupted)["ttt_other"]:
        subjects = {operators[e["problem"].split()[1]].subject for e in record["examples"]}
        assert len(subjects) == 1
        assert record["subject"] not in subjects


def test_evaluate_resumes_to_identical_records(uninterrupted, environment, tmp_path):
    """Kills a run that has finished some rows and not begun others, and resumes it."""
    workdir = shutil.copytree(uninterrupted, tmp_path / "run")
    flags = [*SMALL, f"--workdir={workdir}"]
    row = workdir / "seed0" / "evaluation" / "tt_ss.jsonl"
    row.unlink()
    row.with_name("majority.jsonl").unlink()
    others = {path: path.read_bytes() for path in row.parent.glob("*.jsonl")}
    assert len(others) == 5
    with subprocess.Popen(command("evaluate", *flags), env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while not (row.exists() and row.read_bytes().count(b"\n") >= 4):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    kept = row.read_bytes()
    assert 4 <= kept.count(b"\n") < 24
    row.write_bytes(kept + b'{"id": "torn')
    done = as_process("evaluate", *flags, env=environment)
    assert done.returncode == 0, done.stderr
    assert row.read_bytes().startswith(kept)
    assert {path: path.read_bytes() for path in others} == others
    assert records(workdir) == records(uninterrupted)


def test_report_only_rebuilds_identical_report(uninterrupted, tmp_path):
    (tmp_path / "seed0").mkdir()
    (tmp_path / "config.json").write_text(
        (uninterrupted / "config.json").read_text().replace('"model": "tiny"', '"model": "/nowhere"')
    )
    (tmp_path / "seed0" / "evaluation").symlink_to(uninterrupted / "seed0" / "evaluation")
    done = in_process("evaluate", f"--workdir={tmp_path}", "--report_only")
    assert done.returncode == 0, done.stderr
    for name in ("table1.json", "table1.md"):
        assert (tmp_path / "report" / name).read_bytes() == (uninterrupted / "report" / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gamma=0.7"], "started with gamma=0.1, now it is 0.7"),
        (["--methods=majority"], "add base and tt_ss"),
    ],
)
def test_evaluate_rejects_flags_contradicting_workdir(uninterrupted, flags, message):
    done = in_process("evaluate", f"--workdir={uninterrupted}", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_evaluate_preset_must_match_workdir(uninterrupted):
    done = in_process("evaluate", "--preset=tiny", f"--workdir={uninterrupted}")
    assert done.returncode == 2
    assert "now it is" in done.stderr
    assert done.stderr.count("\n") == 1


def test_evaluate_rejects_records_without_settings(uninterrupted, tmp_path):
    (tmp_path / "seed0").mkdir()
    (tmp_path / "seed0" / "evaluation").symlink_to(uninterrupted / "seed0" / "evaluation")
    for flags in (["--report_only"], SMALL):
        done = in_process("evaluate", f"--workdir={tmp_path}", *flags)
        assert done.returncode == 2
        assert "holds 'seed0' but no config.json, so its settings are unknown" in done.stderr


def test_evaluate_rejects_workdir_in_use(uninterrupted):
    with locked_elsewhere(uninterrupted):
        for flags in (["--report_only"], []):
            done = in_process("evaluate", f"--workdir={uninterrupted}", *flags)
            assert done.returncode == 2
            assert "is in use by process" in done.stderr


def test_evaluate_skips_untrained_rows(uninterrupted):
    done = in_process("evaluate", f"--workdir={uninterrupted}", "--methods=base,mass")
    assert done.returncode == 0, done.stderr
    assert "not trained, so left out: mass, mass_unadapted" in done.stderr
    assert "| Base |" in done.stdout


def test_report_only_rejects_empty_workdir(tmp_path):
    done = in_process("evaluate", f"--workdir={tmp_path}", "--report_only")
    assert done.returncode == 2
    assert "holds no records" in done.stderr
