"""The report of a workdir whose files are damaged: it is written from what can be read, and says what is missing."""

import json

import pytest

from mass_jax.config import Config
from mass_jax.evaluation.study import records_path, write_report
from mass_jax.runtime import jsonl


def record(row, column, i):
    cost = {"tokens_written": 10, "tokens_trained": 20, "flops": 3e9, "seconds": 0.5, "verdict": "wrong"}
    place = {"id": f"p{i}", "subject": f"s{i % 2}", "cluster": f"c{i}", "seed": 0, "column": column}
    return place | cost | {"right": int(row == "mass")}


@pytest.fixture
def workdir(tmp_path):
    """A finished run of four steps, evaluated on two columns of three problems."""
    seed = tmp_path / "seed0"
    for row in ("base", "mass"):
        records = [record(row, column, i) for column in ("unseen", "seen") for i in range(3)]
        jsonl.rewrite(records_path(seed, row), records)
    (seed / "mass" / "checkpoints" / "4").mkdir(parents=True)
    jsonl.rewrite(seed / "mass" / "metrics.jsonl", [{"step": i, "outer_loss": 1.0} for i in range(4)])
    (seed / "evaluation" / "worked.json").write_text("[]")
    return tmp_path


def report(workdir):
    return write_report(Config(steps=4, warmup_steps=1, methods=("base", "mass"), seeds=(0,)), workdir)


def test_report_of_intact_files_is_silent(workdir, caplog):
    assert report(workdir)["methods"]["mass"]["accuracy"] == 1.0
    assert caplog.text == ""


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_report_names_cut_metrics(workdir, caplog, cut):
    path = workdir / "seed0" / "mass" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    report(workdir)
    assert f"{path} lacks {1 + (cut > 35)} of 4 steps" in caplog.text
    assert (workdir / "report" / "training.png").exists()


def test_report_names_damaged_records(workdir, caplog):
    path = records_path(workdir / "seed0", "base")
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:30] + bytes(8)
    path.write_bytes(b"\n".join(lines))
    assert report(workdir)["methods"]["base"]["columns"]["unseen"]["problems"] == 2
    assert f"{path}:2: NUL bytes" in caplog.text


@pytest.mark.parametrize("content", ["[{", '{"a": 1}', "[" * 100_000])
def test_report_leaves_out_damaged_examples(workdir, caplog, content):
    path = workdir / "seed0" / "evaluation" / "worked.json"
    path.write_text(content)
    report(workdir)
    assert f"{path}: " in caplog.text


def test_report_leaves_out_partial_rows(workdir, caplog):
    path = records_path(workdir / "seed0", "mass")
    jsonl.rewrite(path, [json.loads(line) for line in path.read_text().splitlines()[:2]])
    assert [*report(workdir)["methods"]] == ["base"]
    assert "row mass has no records of column seen and is left out" in caplog.text
