"""Tests of CSV files of problems: quoting, encodings, headers, ragged rows and damaged files."""

import csv
import gzip
import io
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.tasks.base import Problem
from mass_jax.tasks.math import data_csv, load

COLUMNS = {"problem": "question", "solution": "why", "answer": "label"}
TEXT = 'question,why,label\n"Add 1, 2\nand ""3"".",sum,006.50\n\nNext?,none,1e-7\n'
PROBLEMS = [
    Problem("own-00000", 'Add 1, 2\nand "3".', "sum", "006.50"),
    Problem("own-00001", "Next?", "none", "1e-7"),
]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("own.csv", TEXT.encode()),
        ("own.CSV", TEXT.replace("\n", "\r\n").encode("utf-8-sig")),
        ("own.csv", TEXT.replace("question,why,label", " question , why,label").encode("utf-16")),
        ("own.csv.gz", gzip.compress(TEXT.encode())),
    ],
    ids=["plain", "byte order mark and carriage returns", "utf-16", "gzip"],
)
def test_load_reads_csv(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    loaded = load(str(tmp_path / name), strict=True, columns=COLUMNS).problems
    assert [(p.problem, p.solution, p.answer) for p in loaded] == [(p.problem, p.solution, p.answer) for p in PROBLEMS]


def test_load_counts_bad_csv_rows(tmp_path):
    path = tmp_path / "own.csv"
    path.write_bytes(TEXT.encode() + b"a,b\na,b,c,d\ngr\xf6n,b,c\nQ?,s,\nQ?,s,NaN\n")
    loaded = load(str(path), columns=COLUMNS)
    assert loaded.problems == PROBLEMS
    assert loaded.first == {
        "fewer fields than the header": "line 6",
        "more fields than the header": "line 7",
        "not UTF-8 (byte 0xf6)": "line 8",
        "empty answer": "line 9",
        "missing answer (NaN)": "line 10",
    }
    with pytest.raises(UserError, match=r"own\.csv: line 6: fewer fields than the header; fix the row"):
        load(str(path), strict=True, columns=COLUMNS)


REFUSED = {
    "unclosed": ('problem,solution,answer\na,b,c\n"a,b,c\n', r":3: not CSV \(unexpected end of data\); quote fields"),
    "text after quote": ('problem,solution,answer\n"a"b,c,d\n', r":2: not CSV .* double the quotes in them"),
    "long": ("problem,solution,answer\n" + "a" * 131_073 + ",b,c\n", r":2: not CSV \(field larger than"),
    "long quoted": ('problem,solution,answer\n\n"' + "a,b\n" * 40_000, r":3: not CSV \(field larger than"),
    "duplicate": ("\nproblem,answer, problem\na,b,c\n", r":2: the header has the column 'problem' 2 times; rename"),
    "semicolons": (
        "problem;solution;answer\na;b;c\n",
        r":1: the header is separated by ';'; save the file with",
    ),
    "latin header": (b"gr\xf6n,solution,answer\na,b,c\n", r":1: the header is not UTF-8 \(byte 0xf6\); save"),
    "empty": ("", "has no rows; provide rows"),
    "header only": ("problem,solution,answer\n", "has no rows; provide rows"),
    "no solution": ("problem,answer\na,b\n", r"fields \['answer', 'problem'\] match no .*--columns=problem:COLUMN"),
    "zip": (b"PK\x03\x04rest", "is a zip archive; unpack it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_load_refuses_damaged_csv(tmp_path, case):
    data, message = REFUSED[case]
    path = tmp_path / "own.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError, match=message) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def write(rows):
    """Returns rows as CSV text."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def rows_or_error(data):
    """Returns the rows of a file with this text, or the error that refuses it."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "own.csv"
        path.write_bytes(data)
        try:
            return data_csv.rows(path)
        except UserError as error:
            return error


FIELD = st.text(st.sampled_from("ab,\"\n'; \t7é\0"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIELD, FIELD), max_size=4))
def test_rows_inverts_csv_writer(fields):
    found = rows_or_error(write([("p", "a"), *fields]).encode())
    assert [row for _, row in found] == [{"p": p, "a": a} for p, a in fields]


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(st.sampled_from('ab,"\n\r;\0\ufeff'), max_size=40).map(str.encode),
        st.builds(lambda cut: TEXT.encode()[:cut], st.integers(0, len(TEXT))),
    )
)
def test_rows_of_any_bytes_are_rows_or_one_line_errors(data):
    found = rows_or_error(data)
    if isinstance(found, UserError):
        assert "\n" not in str(found)
        assert "own.csv" in str(found)
    else:
        assert all(isinstance(row, dict | jsonl.DamagedLine) for _, row in found)
