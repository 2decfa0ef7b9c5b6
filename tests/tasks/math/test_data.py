"""Problem sets from rows and files: fields, answers, bad rows, draws."""

import json

import pytest

from mass_jax.tasks.math import load, sample
from mass_jax.tasks.math.data import from_rows
from mass_jax.tasks.math.sources import SOURCES
from mass_jax.tasks.problem import Problem

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
def test_each_source_with_its_own_fields(name, row, expected):
    assert from_rows([row], "t", SOURCES[name]).problems == [expected]
    assert from_rows([row], "t").problems == [expected]  # recognized by its fields


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


def test_bad_rows_are_counted_by_reason():
    loaded = from_rows([MATH, *BAD.values()], "t", SOURCES["math"])
    assert len(loaded.problems) == 1
    reasons = dict.fromkeys(BAD, 1)
    del reasons["empty answer"]
    assert {reason: loaded.skipped[reason] for reason in reasons} == reasons
    assert loaded.skipped.total() == len(BAD)


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_an_error_by_choice(reason):
    with pytest.raises(ValueError, match="row 1: ") as error:
        from_rows([MATH, BAD[reason]], "t", SOURCES["math"], strict=True)
    assert "\n" not in str(error.value)


def test_a_null_level_is_none_and_a_number_is_text():
    rows = [{**MATH500, "level": level, "unique_id": str(level)} for level in (None, 3, "Level 5", "Level ?")]
    assert [problem.level for problem in from_rows(rows, "t").problems] == [None, "3", "5", None]


def test_an_id_that_comes_again_is_skipped():
    assert dict(from_rows([MATH500, MATH500], "t").skipped) == {"id seen before": 1}


def test_jsonl_with_broken_lines(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(MATH500) + "\n{broken\n\n" + json.dumps({**MATH500, "unique_id": 7}) + "\n")
    loaded = load(str(path))
    assert [problem.id for problem in loaded.problems] == ["test/1.json", "7"]
    assert dict(loaded.skipped) == {"wrong type of row: str": 1}


def test_parquet_and_saved_sets(tmp_path):
    import datasets

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
        ("rows.csv", "a,b", "unknown kind of file"),
        ("rows.parquet", "no parquet", "cannot be read"),
        ("empty.jsonl", "", "no known source"),
        ("other.jsonl", '{"q": 1}', "fields .'q'. are of no known source"),
        ("bad.jsonl", json.dumps({**MATH, "solution": "none"}), "no row is usable .1 x no boxed"),
    ],
)
def test_files_that_are_no_problem_set(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_name_that_is_nothing():
    with pytest.raises(ValueError, match="neither a file nor a hub id; known names: math, "):
        load("maht")


def test_a_draw_depends_on_the_seed_alone():
    problems = [Problem(f"{i:03d}", "p", "s", "a") for i in range(100)]
    drawn = sample(problems, 20, seed=1)
    assert drawn == sample(problems[::-1], 20, seed=1)
    assert drawn != sample(problems, 20, seed=2)
    assert len({problem.id for problem in drawn}) == 20
    with pytest.raises(ValueError, match="101 problems asked of a set that has 100"):
        sample(problems, 101, seed=0)
