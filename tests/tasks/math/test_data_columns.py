"""Tests of --columns: names, shared columns, other formats and errors."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from mass_jax.config.task import COLUMNS, TaskSettings
from mass_jax.errors import UserError
from mass_jax.tasks.math import load
from mass_jax.tasks.math.sources import OWN, fields_of

ROW = {"question": "1 + 1?", "label": "2", "problem": "unused"}
RENAMED = {"problem": "question", "answer": "label", "solution": "label"}


def test_columns_are_fields_of_own_files():
    assert set(COLUMNS) == fields_of(OWN)


@pytest.mark.parametrize("name", ["own.jsonl", "own.parquet"])
def test_load_renames_columns(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pa.table({key: [value] for key, value in ROW.items()}), path)
    else:
        path.write_text(json.dumps({"question": "no label"}) + "\n" + json.dumps(ROW) + "\n")
    problem = load(str(path), columns=RENAMED).problems[0]
    assert (problem.problem, problem.solution, problem.answer) == ("1 + 1?", "2", "2")


def test_load_refuses_unknown_column(tmp_path):
    (tmp_path / "own.jsonl").write_text(json.dumps(ROW))
    with pytest.raises(UserError) as caught:
        load(str(tmp_path / "own.jsonl"), columns={"problem": "qestion"})
    assert str(caught.value) == (
        f"--columns=problem:qestion: {tmp_path}/own.jsonl has no column 'qestion'; did you mean 'question'? "
        "Known: label, problem, question"
    )


def test_load_keeps_error_on_one_line(tmp_path):
    (tmp_path / "own.csv").write_text('"two\nlines",answer\na,b\n')
    with pytest.raises(UserError, match=r"Known: 'two\\nlines', answer$"):
        load(str(tmp_path / "own.csv"), columns={"problem": "question"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("question",), "--columns='question' must be NAME:COLUMN, like problem:question"),
        (("problem:",), "--columns='problem:' must be NAME:COLUMN"),
        (("none", "problem:a"), "--columns='none' must be NAME:COLUMN"),
        (("anser:label",), "renames to an unknown name; did you mean 'answer'?"),
        (("answer:a", "answer:b"), "--columns names 'answer' twice; give it one column"),
    ],
    ids=str,
)
def test_columns_are_checked(columns, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        _ = TaskSettings(columns=columns).renamed_columns
