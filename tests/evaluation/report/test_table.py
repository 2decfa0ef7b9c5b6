"""The report of invented records whose numbers are known."""

import json

import pytest

from mass_jax.evaluation.report import write_report
from mass_jax.evaluation.report.markdown import to_markdown
from mass_jax.evaluation.report.table import (
    MIN_PER_SUBJECT,
    applicable,
    drawn_subjects,
    limits_of,
    make_table,
    training_cost,
)


def records_of(rights):
    cost = {"tokens_written": 10, "tokens_trained": 20, "flops": 3e9, "seconds": 0.5, "verdict": "wrong"}
    return [
        {"id": f"p{i}", "subject": f"s{i % 2}", "cluster": f"c{i // 2}", "seed": 0, "column": column, "right": r} | cost
        for column in ("unseen", "seen")
        for i, r in enumerate(rights)
    ]


RECORDS = {"base": records_of([0, 0, 1, 0]), "mass": records_of([1, 1, 1, 0]), "oracle": records_of([1, 1, 1, 1])}
LABELS = {"base": "Base", "mass": "MASS", "oracle": "Upper bound"}


def test_table_holds_known_numbers():
    table = make_table(RECORDS, LABELS, ["base", "mass"])
    assert table["methods"]["mass"]["accuracy"] == 0.75
    assert table["references"]["oracle"]["columns"]["seen"]["accuracy"] == 1
    (pair,) = table["paired"]["unseen"]
    assert (pair["from"], pair["to"], pair["difference"]) == ("base", "mass", 0.5)
    assert table["subjects"]["mass"] == {"s0": 1.0, "s1": 0.5}
    assert table["methods"]["base"]["cost"]["tokens_written_per_question"] == 10


def test_trained_adaptation_is_compared_with_all_rows():
    records = RECORDS | {"tt_ss": RECORDS["base"], "ttt": RECORDS["oracle"], "mass_unadapted": RECORDS["oracle"]}
    labels = LABELS | {"tt_ss": "TT-SS", "ttt": "TTT", "mass_unadapted": "MASS weights"}
    table = make_table(records, labels, ["base", "tt_ss", "ttt", "mass"])
    pairs = {(pair["from"], pair["to"]): pair["difference"] for pair in table["paired"]["unseen"]}
    assert pairs["tt_ss", "mass"] == 0.5
    assert pairs["mass_unadapted", "mass"] == pairs["ttt", "mass"] == -0.25
    assert "| MASS − MASS weights | -25.0 [" in to_markdown(table, [])


def test_markdown_has_every_row():
    text = to_markdown(make_table(RECORDS, LABELS, ["base", "mass"]), ["It is small."])
    for part in ("| Base |", "| MASS | 75.0 [", "| Upper bound |", "| MASS − Base | +50.0 [", "- It is small."):
        assert part in text


def test_training_cost_is_mean_over_seeds():
    step = {"samples": 10.0, "step_time": 60.0}
    cost = training_cost([[step, step], [step]])
    assert cost == {"steps": 1.5, "samples": 15.0, "seconds": 90.0}
    assert training_cost([[{"samples": 10.0}], []]) == {"steps": 1.0, "samples": 10.0}  # metrics without times
    assert training_cost([[]]) is None
    text = to_markdown(make_table(RECORDS, LABELS, ["base", "mass"], training={"mass": cost}), [])
    assert next(line for line in text.splitlines() if line.startswith("| MASS |")).endswith("| 15 | 1.5 |")
    assert next(line for line in text.splitlines() if line.startswith("| Base |")).endswith("| 0 | 0 |")


def test_markdown_counts_truncated_answers():
    said = {name: [r | {"answers_cut_off": i % 2} for i, r in enumerate(rows)] for name, rows in RECORDS.items()}
    said["mass"] = [r | {"examples_cut_off": 3} for r in said["mass"]]
    table = make_table(said, LABELS, ["base", "mass"])
    assert table["methods"]["mass"]["cut_off"] == {"answers": 4, "examples": 24}
    assert "Truncated at the token limit: Base 4 answers; MASS 4 answers, 24 examples;" in to_markdown(table, [])
    none = {name: [r | {"answers_cut_off": 0} for r in rows] for name, rows in RECORDS.items()}
    assert "token limit: none." in to_markdown(make_table(none, LABELS, ["base"]), [])
    assert "Truncated" not in to_markdown(make_table(RECORDS, LABELS, ["base"]), [])


def test_markdown_uses_the_singular_for_one():
    one = {"base": [r | {"answers_cut_off": int(i == 0)} for i, r in enumerate(RECORDS["base"])]}
    assert "token limit: Base 1 answer." in to_markdown(make_table(one, LABELS, ["base"]), [])


def test_report_writes_all_files(tmp_path):
    curves = {"mass": [{"step": i, "outer_loss": 1 / (i + 1), "reward": None} for i in range(12)]}
    records = {name: many([0, 1, 1, i], 4 * MIN_PER_SUBJECT) for i, name in enumerate(("base", "mass"))}
    report(tmp_path, records=records, curves=curves)
    assert json.loads((tmp_path / "table1.json").read_text())["columns"] == ["unseen", "seen"]
    for name in ("accuracy", "gain_by_subject", "training"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{name}.svg").is_file()


def report(out, **given):
    empty = {"records": RECORDS, "labels": LABELS, "methods": ["base", "mass"], "warmup": 3, "limits": []}
    return write_report(out, **(empty | {"curves": {}, "worked": []} | given))


def many(rights, count):
    return [r | {"id": f"p{i}", "cluster": f"c{i}"} for i, r in enumerate(records_of((rights * count)[:count]))]


def test_report_removes_outdated_figures(tmp_path):
    (tmp_path / "gain_by_subject.png").touch()
    (tmp_path / "training.svg").touch()
    report(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"table1.json", "table1.md", "accuracy.png", "accuracy.svg"}


@pytest.mark.parametrize(("count", "drawn"), [(MIN_PER_SUBJECT - 1, []), (MIN_PER_SUBJECT, ["s0", "s1"])])
def test_subjects_with_few_problems_are_not_drawn(count, drawn):
    table = make_table({name: many([0, 1, 1, 1], 2 * count) for name in ("base", "mass")}, LABELS, ["base", "mass"])
    assert sorted(drawn_subjects(table)) == drawn
    text = to_markdown(table, [])
    assert f"s0 (n = {count})" in text
    note = f"Not in the figure, with fewer than {MIN_PER_SUBJECT} problems or without an interval: s0, s1."
    assert (note in text) is not bool(drawn)


def test_subject_counts_ignore_repeated_seeds():
    rows = [r | {"seed": seed} for seed in range(9) for r in records_of([0, 1, 1, 0])]
    table = make_table({"base": rows, "mass": rows}, LABELS, ["base", "mass"])
    assert {detail["problems"] for detail in table["subject_details"]["mass"].values()} == {2}


def test_subject_gain_is_paired():
    table = make_table(RECORDS, LABELS, ["base", "mass"])
    assert "gain" not in table["subject_details"]["base"]["s0"]
    assert table["subject_details"]["mass"]["s1"]["gain"] == 0.5  # p1 from 0 to 1, p3 stays 0
    assert table["subject_details"]["mass"]["s1"]["gain_ci95"] == [0, 1]


def test_subject_interval_needs_two_clusters():
    records = {name: [r | {"cluster": "one"} for r in rows] for name, rows in RECORDS.items()}
    table = make_table(records, LABELS, ["base", "mass"])
    assert table["subject_details"]["mass"]["s0"] == {"problems": 2, "ci95": None, "gain": 0.5, "gain_ci95": None}
    assert "| MASS | 100.0 | 50.0 |" in to_markdown(table, [])


def test_markdown_escapes_subject_names():
    records = {"base": [r | {"subject": "a|b\n<img>"} for r in RECORDS["base"]]}
    text = to_markdown(make_table(records, LABELS, ["base"]), [])
    assert "| a\\|b\\u000a&lt;img> (n = 4) |" in text


GOLDEN = {
    ("testbed", "base"): """\
- The testbed is constructed so that the effect can occur: the model knows more than it can express in a direct answer.
- Seconds are the median over batches, measured on the machine of this run.
""",
    ("testbed", "base ttt mass_gold"): """\
- The testbed is constructed so that the effect can occur: the model knows more than it can express in a direct answer.
- Most of what meta-training teaches here is one style of writing and staying on the target's operator.
- TTT trains on examples of other operators, which cannot help here; in the paper it hurts.
- Seconds are the median over batches, measured on the machine of this run.
""",
    ("families", "base solver_grpo"): """\
- One-step arithmetic in short forms, with a limit on answer tokens; nothing is claimed about longer reasoning.
- Operands of the evaluated problems are new; families are new only in a column named unseen.
- Seconds are the median over batches, measured on the machine of this run.
""",
    ("math", "base quest"): """\
- QueST-style self-synthesis changes only the prompt of TT-SS, to an instruction; it reproduces no other part of QueST.
- Seconds are the median over batches, measured on the machine of this run.
""",
    ("math", "base mass"): "- Seconds are the median over batches, measured on the machine of this run.\n",
}


@pytest.mark.parametrize(("task", "rows"), GOLDEN)
def test_report_notes_mention_only_its_rows(task, rows, tmp_path):
    records = dict.fromkeys(rows.split(), RECORDS["mass"])
    report(tmp_path, records=records, labels=dict.fromkeys(records, "x"), methods=[*records], limits=limits_of(task))
    _, notes = (tmp_path / "table1.md").read_text().split("Limitations:\n\n")
    assert notes == GOLDEN[task, rows]
    assert json.loads((tmp_path / "table1.json").read_text())["limits"] == applicable(limits_of(task), records)
