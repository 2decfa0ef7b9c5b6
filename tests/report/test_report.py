"""The report from made-up records whose figures are known."""

import json

import pytest

from mass_jax.report import figures, write_report
from mass_jax.report.page import write_page
from mass_jax.report.table import make_table, to_markdown


def records_of(rights):
    cost = {"tokens_written": 10, "tokens_trained": 20, "flops": 3e9, "seconds": 0.5, "verdict": "wrong"}
    return [
        {"id": f"p{i}", "subject": f"s{i % 2}", "cluster": f"c{i // 2}", "seed": 0, "column": column, "right": r} | cost
        for column in ("unseen", "seen")
        for i, r in enumerate(rights)
    ]


RECORDS = {"base": records_of([0, 0, 1, 0]), "mass": records_of([1, 1, 1, 0]), "oracle": records_of([1, 1, 1, 1])}
LABELS = {"base": "Base", "mass": "MASS", "oracle": "Upper bound"}


def test_table_figures():
    table = make_table(RECORDS, LABELS, ["base", "mass"])
    assert table["methods"]["mass"]["accuracy"] == 0.75
    assert table["references"]["oracle"]["columns"]["seen"]["accuracy"] == 1
    (pair,) = table["paired"]["unseen"]
    assert (pair["from"], pair["to"], pair["difference"]) == ("base", "mass", 0.5)
    assert table["subjects"]["mass"] == {"s0": 1.0, "s1": 0.5}
    assert table["methods"]["base"]["cost"]["tokens_written_per_question"] == 10


def test_markdown_shows_every_row_and_the_limits():
    text = to_markdown(make_table(RECORDS, LABELS, ["base", "mass"]), ["It is small."])
    for part in ("| Base |", "| MASS | 75.0 [", "| Upper bound |", "| MASS − Base | +50.0 [", "- It is small."):
        assert part in text


def test_what_was_cut_off_is_counted_where_the_records_say():
    said = {name: [r | {"answers_cut_off": i % 2} for i, r in enumerate(rows)] for name, rows in RECORDS.items()}
    said["mass"] = [r | {"examples_cut_off": 3} for r in said["mass"]]
    table = make_table(said, LABELS, ["base", "mass"])
    assert table["methods"]["mass"]["cut_off"] == {"answers": 4, "examples": 24}
    assert "Cut off at the limit on tokens: Base 4 answers; MASS 4 answers, 24 examples;" in to_markdown(table, [])
    none = {name: [r | {"answers_cut_off": 0} for r in rows] for name, rows in RECORDS.items()}
    assert "tokens: none." in to_markdown(make_table(none, LABELS, ["base"]), [])
    assert "Cut off" not in to_markdown(make_table(RECORDS, LABELS, ["base"]), [])


def test_all_files_are_written(tmp_path):
    curves = {"mass": [{"step": i, "outer_loss": 1 / (i + 1), "reward": None} for i in range(12)]}
    write_report(
        tmp_path,
        records=RECORDS,
        labels=LABELS,
        methods=["base", "mass"],
        curves=curves,
        warmup=3,
        worked=[],
        limits=[],
    )
    assert json.loads((tmp_path / "table1.json").read_text())["columns"] == ["unseen", "seen"]
    for name in ("accuracy.png", "gain_by_subject.png", "training.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "</table><img src=x onerror=alert(1)>"])
def test_model_text_is_escaped(tmp_path, hostile):
    stage = {
        "examples": [
            {"text": hostile, "rejected": hostile},
            {"text": hostile, "score": 0.5, "reward": 0.1, "useful": True},
        ],
        "unadapted": hostile,
        "adapted": "1 1",
    }
    worked = [{"problem": hostile, "answer": "1 1", "subject": hostile, "stages": {hostile: stage}}]
    write_page(worked, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert "<img" not in text


def test_gain_by_subject_shows_dollars_of_a_name(tmp_path):
    subjects = {"$x_{$ and $": 0.5, "plain": 0.25}
    methods = {name: {"label": name} for name in ("base", "mass")}
    table = {"methods": methods, "subjects": {"base": subjects, "mass": subjects}, "columns": ["test"]}
    figures.gain_by_subject(table, tmp_path / "gain.png")
    assert (tmp_path / "gain.png").stat().st_size > 1000
