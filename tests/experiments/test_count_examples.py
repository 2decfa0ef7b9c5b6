"""Tests for experiments.tools.count_examples."""

import json

from experiments.tools import count_examples


def example(problem, solution, useful):
    return {"text": f" {problem} Answer: {solution}", "problem": problem, "solution": solution, "useful": useful}


def test_count_separates_correct_from_useful():
    records = [
        {"column": "seen", "examples": [example("2 * 3", "6", True), example("2 * 3", "7", False)]},
        {"column": "seen", "examples": [example("4 + 5", "9", False), {"text": "9", "rejected": "form"}]},
        {"column": "unseen", "examples": [example("the moon", "1", False)]},
        {"column": "none", "examples": []},
    ]
    assert count_examples.count(records) == {
        "seen": {"written": 4, "accepted": 3, "correct": 2, "useful": 1, "different": 2},
        "unseen": {"written": 1, "accepted": 1, "correct": 0, "useful": 0, "different": 1},
    }


def test_command_reads_every_seed(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"seeds": [0, 1], "task": "families"}))
    for seed in (0, 1):
        path = tmp_path / f"seed{seed}" / "evaluation" / "tt_ss.jsonl"
        path.parent.mkdir(parents=True)
        record = {"seed": seed, "column": "seen", "id": "a", "examples": [example("2 * 3", "6", seed == 0)]}
        path.write_text(json.dumps(record) + "\n")
    monkeypatch.setattr(count_examples.flags, "FLAGS", type("Flags", (), {"workdir": str(tmp_path)}))
    count_examples.command(None)
    assert "| TT-SS | seen | 100.0 % | 100.0 % | 50.0 % | 1 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "report" / "examples.json").read_text())["tt_ss"]["seen"]["useful"] == 1
