"""Tests of loading problem sets: fields, answers, bad rows, file formats and sampling."""

import gzip
import json
import pathlib
import tempfile
from decimal import Decimal

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mass_jax.errors import UserError
from mass_jax.tasks.base import Problem
from mass_jax.tasks.math import load, sample
from mass_jax.tasks.math.data import from_rows
from mass_jax.tasks.math.sources import SOURCES

MATH = {"problem": "Add.", "solution": r"It is \boxed{\frac{1}{2}}.", "level": "Level 3", "type": "Algebra"}
MATH500 = {**MATH, "answer": r"\frac{1}{2}", "subject": "Algebra", "level": 3, "unique_id": "test/1.json"}
GSM8K = {"question": "How many?", "answer": "48/2 = <<48/2=24>>24\n#### 1,024"}
SVAMP = {
    "ID": "c-1",
    "Body": "A has 3. ",
    "Question": "And B?",
    "Equation": "( 5.0 - 2.0 )",
    "Answer": 3.0,
    "Type": "S",
}


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("math", MATH, Problem("t-00000", "Add.", MATH["solution"], r"\frac{1}{2}", "Algebra", "3")),
        ("math500", MATH500, Problem("test/1.json", "Add.", MATH["solution"], r"\frac{1}{2}", "Algebra", "3")),
        ("gsm8k", GSM8K, Problem("t-00000", "How many?", "48/2 = 24\n#### 1,024", "1024")),
        ("svamp", SVAMP, Problem("c-1", "A has 3. And B?", "( 5.0 - 2.0 )", "3", "S")),
    ],
)
def test_from_rows_maps_source_fields(name, row, expected):
    assert from_rows([row], "t", SOURCES[name]).problems == [expected]
    assert from_rows([row], "t").problems == [expected]  # detected by its fields


BAD = {
    "missing field 'problem'": {"solution": r"\boxed{1}"},
    "missing field 'solution'": {**MATH, "solution": None},
    "wrong type of 'problem': list": {**MATH, "problem": ["Add."]},
    "wrong type of 'level': list": {**MATH, "level": [3]},
    "no boxed answer in 'solution'": {**MATH, "solution": r"cut \boxed{1"},
    "empty answer": {**MATH, "solution": r"\boxed{ }"},
    "empty problem": {**MATH, "problem": " "},
    "wrong type of row: str": "text",
}


def test_from_rows_counts_bad_rows():
    loaded = from_rows([MATH, *BAD.values()], "t", SOURCES["math"])
    assert len(loaded.problems) == 1
    reasons = dict.fromkeys(BAD, 1)
    del reasons["empty answer"]
    assert {reason: loaded.skipped[reason] for reason in reasons} == reasons
    assert loaded.skipped.total() == len(BAD)


@pytest.mark.parametrize("reason", BAD)
def test_from_rows_strict_raises(reason):
    with pytest.raises(ValueError, match="row 1: ") as error:
        from_rows([MATH, BAD[reason]], "t", SOURCES["math"], strict=True)
    assert "\n" not in str(error.value)


def test_from_rows_normalizes_levels():
    rows = [{**MATH500, "level": level, "unique_id": str(level)} for level in (None, 3, "Level 5", "Level ?")]
    assert [problem.level for problem in from_rows(rows, "t").problems] == [None, "3", "5", None]


def test_from_rows_skips_duplicate_ids():
    assert dict(from_rows([MATH500, MATH500], "t").skipped) == {"id seen before": 1}


def test_load_skips_broken_lines(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(MATH500) + "\n{broken\n\n" + json.dumps({**MATH500, "unique_id": 7}) + "\n")
    loaded = load(str(path))
    assert [problem.id for problem in loaded.problems] == ["test/1.json", "7"]
    reason = "not JSON (Expecting property name enclosed in double quotes)"
    assert (dict(loaded.skipped), loaded.first) == ({reason: 1}, {reason: "line 2"})
    with pytest.raises(UserError, match=r"own.jsonl: line 2: not JSON .*--bad_rows=skip"):
        load(str(path), strict=True)


@pytest.mark.parametrize("name", ["own.jsonl", "own.json", "OWN.NDJSON", "own.jsonl.gz"])
def test_load_detects_json_layout(tmp_path, name):
    text = json.dumps([MATH500, {**MATH500, "unique_id": 7}], indent=1)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode("utf-16"))
    assert [problem.id for problem in load(str(tmp_path / name), strict=True).problems] == ["test/1.json", "7"]


LITERALS = {
    "0.1000": "0.1000",
    "72.0": "72.0",
    "1e-7": "0.0000001",
    "1.5E+3": "1500",
    "2E22": "20000000000000000000000",
    "123456789.123456789123": "123456789.123456789123",
    "1234567": "1234567",
    "8" * 5000: "8" * 5000,
    "-0.0": "0",
    "-0": "0",
    "1e400": "1" + "0" * 400,
    '" 1e-7 "': "1e-7",
}


@pytest.mark.parametrize("literal", LITERALS, ids=lambda literal: literal[:25])
def test_load_keeps_json_digits(tmp_path, literal):
    row = json.dumps({**MATH500, "answer": None, "unique_id": 12.0})
    (tmp_path / "own.jsonl").write_text(row.replace('"answer": null', f'"answer": {literal}') + "\n")
    problem = load(str(tmp_path / "own.jsonl"), strict=True).problems[0]
    assert (problem.answer, problem.id) == (LITERALS[literal], "12.0")


REFUSED = {
    "NaN": "missing field 'answer' (NaN)",
    "Infinity": "missing field 'answer' (Infinity)",
    "-Infinity": "missing field 'answer' (-Infinity)",
    "null": "missing field 'answer'",
    '"NaN"': "missing answer (NaN)",
    "true": "wrong type of 'answer': bool",
    "[1.5]": "wrong type of 'answer': list",
    '{"value": 1.5}': "wrong type of 'answer': dict",
    "1e999999999": "a number of more than 10000 digits",
    "1e99999999999999999999": "a number with too large an exponent; write it as a string",
    '"\\ud800"': "'answer' has half of a surrogate pair, which is not a character",
}


@pytest.mark.parametrize("literal", REFUSED)
def test_load_counts_missing_json_answers(tmp_path, literal):
    rows = [json.dumps({**MATH500, "answer": None, "unique_id": i}) for i in range(2)]
    rows = [row.replace('"answer": null', f'"answer": {text}') for row, text in zip(rows, ("1", literal), strict=True)]
    (tmp_path / "own.jsonl").write_text("\n".join(rows))
    loaded = load(str(tmp_path / "own.jsonl"))
    assert (dict(loaded.skipped), loaded.first[REFUSED[literal]]) == ({REFUSED[literal]: 1}, "line 2")


def write_table(path, answers):
    """Writes rows as a Parquet file and as a data set saved by `datasets`; returns both paths."""
    count = len(answers)
    columns = {name: [f"{name} {i}" for i in range(count)] for name in ("problem", "solution")}
    table = pa.table({**columns, "answer": answers, "when": pa.array([1] * count, pa.timestamp("ns"))})
    pyarrow.parquet.write_table(table, path / "rows.parquet")
    datasets.Dataset(table).save_to_disk(path / "saved")
    return [path / "rows.parquet", path / "saved"]


COLUMNS = [
    (pa.array([2**53 + 1, -7], pa.int64()), ["9007199254740993", "-7"]),
    (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
    (pa.array([0.1, 16777216.0, 1e-7, -0.0], pa.float32()), ["0.1", "16777216", "0.0000001", "0"]),
    (pa.array([0.1, 3.0], pa.float32()).dictionary_encode(), ["0.1", "3"]),
    (pa.array([0.1, 1234567.875, 72.0, 1e-7], pa.float64()), ["0.1", "1234567.875", "72", "0.0000001"]),
    (pa.array([1e22], pa.float64()), ["1" + "0" * 22]),
    (pa.array([Decimal("0.10"), Decimal("1234567890123.12")], pa.decimal128(38, 2)), ["0.10", "1234567890123.12"]),
    (pa.array([Decimal("1" + "0" * 60 + ".125")], pa.decimal256(70, 3)), ["1" + "0" * 60 + ".125"]),
    (pa.array(["1/2", "1e-7"], pa.large_string()), ["1/2", "1e-7"]),
    (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
]


@pytest.mark.parametrize(("column", "expected"), COLUMNS, ids=lambda value: str(getattr(value, "type", "")))
def test_load_keeps_table_digits(tmp_path, column, expected):
    for path in write_table(tmp_path, column):
        assert [problem.answer for problem in load(str(path), strict=True).problems] == expected


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([1.0, float("nan")]), "missing field 'answer' (NaN)"),
        (pa.array([1.0, float("-inf")], pa.float32()), "missing field 'answer' (-Infinity)"),
        (pa.array([1, None]), "missing field 'answer'"),
        (pa.array(["1", None]).dictionary_encode(), "missing field 'answer'"),
    ],
    ids=["nan", "infinity", "null", "null in dictionary"],
)
def test_load_counts_missing_table_answers(tmp_path, column, reason):
    for path in write_table(tmp_path, column):
        assert dict(load(str(path)).skipped) == {reason: 1}


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([True]), "bool"),
        (pa.array([[0.5]]), "list"),
        (pa.array([20_000], pa.date32()), "date"),
        (pa.array([1], pa.timestamp("ns")), "TimestampScalar|datetime|Timestamp"),
    ],
    ids=["bool", "list", "date", "timestamp"],
)
def test_load_rejects_other_table_types(tmp_path, column, kind):
    for path in write_table(tmp_path, column):
        with pytest.raises(UserError, match=rf"1 x wrong type of 'answer': ({kind}), first in row 0"):
            load(str(path))


DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)


@settings(max_examples=100, deadline=None)
@given(number=DECIMALS)
def test_load_preserves_random_json_decimals(number):
    row = json.dumps({**MATH500, "answer": "@"}).replace('"@"', str(number))
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "own.jsonl"
        path.write_text(row)
        answer = load(str(path), strict=True).problems[0].answer
    assert "e" not in answer.lower()
    assert Decimal(answer) == number
    if number:
        assert len(answer.partition(".")[2]) == max(-number.as_tuple().exponent, 0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.decimals(places=9, min_value=-(10**20), max_value=10**20), min_size=1),
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
)
def test_load_preserves_random_parquet_columns(decimals, singles, doubles):
    with tempfile.TemporaryDirectory() as directory:
        for values, kind, back in (
            (decimals, pa.decimal128(38, 9), Decimal),
            (singles, pa.float32(), np.float32),
            (doubles, pa.float64(), float),
        ):
            path = pathlib.Path(directory) / "rows.parquet"
            columns = {name: ["?"] * len(values) for name in ("problem", "solution")}
            pyarrow.parquet.write_table(pa.table(columns | {"answer": pa.array(values, kind)}), path)
            answers = [problem.answer for problem in load(str(path), strict=True).problems]
            assert not any("e" in answer or answer.endswith(".0") for answer in answers)
            assert [back(answer) for answer in answers] == [back(value) for value in values]


def test_load_reads_parquet_and_saved_datasets(tmp_path):
    data = datasets.Dataset.from_list([MATH, {**MATH, "level": None}])
    data.to_parquet(tmp_path / "rows.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"test": data}).save_to_disk(tmp_path / "splits")
    of_parquet = load(str(tmp_path / "rows.parquet")).problems
    assert [problem.level for problem in of_parquet] == ["3", None]
    for name, split in (("saved", "train"), ("splits", "test")):
        assert [p.answer for p in load(str(tmp_path / name), split).problems] == [p.answer for p in of_parquet]
    with pytest.raises(ValueError, match=r"no split 'train'.*it has test"):
        load(str(tmp_path / "splits"), "train")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.tsv", "a\tb", "unknown file type"),
        ("rows.parquet", "no parquet", "cannot be read"),
        ("empty.jsonl", "", "has no rows"),
        ("texts.jsonl", '"one"\n"two"\n', "has no JSON objects, only values such as 'one'"),
        ("latin.jsonl", b'{"problem": "gr\xf6\xdfer"}', "latin.jsonl:1: not UTF-8 .byte 0xf6"),
        ("cut.jsonl", json.dumps([MATH] * 2, indent=1)[:-1], "the array is not closed"),
        ("other.jsonl", '{"q": 1}', "fields .'q'. match no known data set"),
        (
            "bad.jsonl",
            json.dumps({**MATH, "solution": "none"}),
            "no row is usable .1 x no boxed answer.*, first in line 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() and len(value) < 20 else "",
)
def test_load_rejects_unusable_files(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        load(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_load_rejects_unknown_name():
    with pytest.raises(ValueError, match="neither a file nor a hub id; known names: math, "):
        load("maht")


def test_sample_depends_on_seed_only():
    problems = [Problem(f"{i:03d}", "p", "s", "a") for i in range(100)]
    drawn = sample(problems, 20, seed=1)
    assert drawn == sample(problems[::-1], 20, seed=1)
    assert drawn != sample(problems, 20, seed=2)
    assert len({problem.id for problem in drawn}) == 20
    with pytest.raises(ValueError, match="101 problems requested, but the set has 100"):
        sample(problems, 101, seed=0)
