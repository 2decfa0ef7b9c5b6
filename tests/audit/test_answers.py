"""The file of answers: a torn one goes on, a foreign one is left as it is."""

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
def test_what_a_kill_tore_off_is_cut_and_done_again(tmp_path, cut):
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
def test_another_file_given_by_mistake_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match="something else than answers"):
        AnswerFile(path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("problem", "request_", "message"),
    [("5 kabo 5", "r", "another problem with id 'a'"), ("4 kabo 3", "s", "another model")],
)
def test_answers_of_another_problem_or_setting_are_not_taken(tmp_path, problem, request_, message):
    path = tmp_path / "out.jsonl"
    path.write_text(LINE)
    with AnswerFile(path) as file, pytest.raises(UserError, match=message):
        file.left([Problem("a", problem, "", "")], lambda name, problem: request_)


def test_a_directory_that_cannot_be_made_costs_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        AnswerFile(tmp_path / "file" / "out.jsonl")


def test_a_file_has_one_writer(tmp_path):
    with AnswerFile(tmp_path / "out.jsonl"), pytest.raises(UserError, match="another run writes"):
        AnswerFile(tmp_path / "out.jsonl")
