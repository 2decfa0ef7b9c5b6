"""Answer files: incomplete lines are cut off, other files are left unchanged."""

import dataclasses
import json

import pytest

from mass_jax.audit.answers import AnswerFile, as_line
from mass_jax.errors import UserError
from mass_jax.tasks.base import Problem

ROW = {"id": "a", "problem": "4 kabo 3", "text": "1 2", "decision": "adapted", "request": "r", "tokens": {"answer": 9}}
LINE = json.dumps(ROW) + "\n"


@dataclasses.dataclass
class Given:
    id: str
    problem: str
    text: str
    decision: str
    request: str


@pytest.mark.parametrize("cut", [1, 4, 20, len(LINE) - 2, len(LINE) - 1])
def test_answer_file_cuts_incomplete_line(tmp_path, cut):
    path = tmp_path / "out.jsonl"
    path.write_text(LINE + LINE.replace('"a"', '"b"')[:cut])
    questions = [Problem("a", "4 kabo 3", "", ""), Problem("b", "4 kabo 3", "", "")]
    with AnswerFile(path) as file:
        left = file.left(questions, lambda name, problem: "r")
        file.write(Given("b", "4 kabo 3", "0 7", "too_few", "r"))
    assert [question.id for question in left] == ["b"]
    assert path.read_text() == LINE + as_line(Given("b", "4 kabo 3", "0 7", "too_few", "r"))


@pytest.mark.parametrize(
    "text",
    [
        "notes without an end",
        '{"model": "tiny"}',
        '{"id": "a", "problem": "4 kabo 3"}',  # a question
        '{"id": "a", "problem": "4 kabo 3"}\n',
        "[1]\n",
        LINE + "more notes",
        LINE + "[" * 100_000 + "\n",
        LINE + "9" * 5000 + "\n",
    ],
)
def test_answer_file_refuses_other_files(tmp_path, text):
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match="holds lines other than answers"):
        AnswerFile(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("problem", "request_", "message"),
    [("5 kabo 5", "r", "another problem with id 'a'"), ("4 kabo 3", "s", "another model")],
)
def test_left_refuses_other_problems_and_settings(tmp_path, problem, request_, message):
    path = tmp_path / "out.jsonl"
    path.write_text(LINE)
    with AnswerFile(path) as file, pytest.raises(UserError, match=message):
        file.left([Problem("a", problem, "", "")], lambda name, problem: request_)


def test_answer_file_names_unwritable_path(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        AnswerFile(tmp_path / "file" / "out.jsonl")


def test_answer_file_has_one_writer(tmp_path):
    with AnswerFile(tmp_path / "out.jsonl"), pytest.raises(UserError, match="another run is writing"):
        AnswerFile(tmp_path / "out.jsonl")
