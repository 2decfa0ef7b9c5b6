"""Tests of the screen on the embedded model: real adaptation, resuming, report."""

import contextlib
import dataclasses
import json

import pytest

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import screen, screen_report
from mass_jax.training.components import assemble

PLAN = screen.Plan(problems=4, groups=2, steps=(2,), examples=(4,), shots=2, controls=True)


@pytest.fixture(scope="module")
def components():
    with contextlib.closing(assemble(Config(num_train_problems=60, eval_batch=4))) as components:
        yield components


@pytest.fixture(scope="module")
def screened(components, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("screen")
    with runtime.stop_on_signals() as stop:
        return screen.screen(components, PLAN, workdir, stop), workdir


def test_screen_measures_every_family(screened, components):
    summary, workdir = screened
    families = {problem.subject for problem in components.problems(0).train}
    assert summary["families"].keys() == families
    for result in summary["families"].values():
        assert result["cells"].keys() == {"base", "few_shot", "right_K2_m4", "wrong_K2_m4", "other_K2_m4"}
        assert all(len(cell["right"]) == 4 for cell in result["cells"].values())
    gains = [result["best_gain"] for result in summary["families"].values()]
    assert sum(gains) / len(gains) >= 0.15  # correct examples help on the testbed
    content = [result["content"][0] for result in summary["families"].values()]
    assert sum(content) / len(content) >= 0.15  # and do so by their content
    assert summary["kept"] == screen.kept(summary["families"])
    assert json.loads((workdir / "screen.json").read_text()) == summary
    assert "correct - wrong answers" in (workdir / "screen.md").read_text()
    assert (workdir / "screen.png").stat().st_size > 1000


def test_screen_resumes_by_family(screened, components):
    summary, workdir = screened
    removed, *others = sorted((workdir / "families").glob("*.json"))
    removed.unlink()
    before = {path: path.stat().st_mtime_ns for path in others}
    with runtime.stop_on_signals() as stop:
        again = screen.screen(components, PLAN, workdir, stop)
    assert removed.exists()
    assert {path: path.stat().st_mtime_ns for path in others} == before
    for family, result in again["families"].items():
        assert result["cells"] == summary["families"][family]["cells"]


def test_screen_refuses_other_settings(screened, components):
    with runtime.stop_on_signals() as stop, pytest.raises(UserError, match="measured with other settings"):
        screen.screen(components, dataclasses.replace(PLAN, shots=3), screened[1], stop)


def test_screen_names_unusable_plans(components, tmp_path):
    with pytest.raises(UserError, match="--screen_problems=5 is not a multiple of --screen_groups=2"):
        screen.Plan(problems=5, groups=2)
    with runtime.stop_on_signals() as stop, pytest.raises(UserError, match="raise --num_train_problems"):
        screen.screen(components, dataclasses.replace(PLAN, problems=40), tmp_path, stop)


def test_kept_needs_fifteen_points():
    assert screen.kept({"a": {"best_gain": 0.15}, "b": {"best_gain": 0.14}}) == ["a"]


def test_markdown_sorts_families_by_gain():
    cell = {"accuracy": 0.5, "gain_ci95": [0.0, 0.25]}
    result = {"cells": {"base": cell, "right_K2_m6": cell}, "best": "right_K2_m6", "seconds": 3.0}
    families = {"low": result | {"best_gain": 0.0}, "high": result | {"best_gain": 0.2}}
    text = screen_report.markdown({"families": families, "kept": ["high"], "settings": {"problems": 4, "groups": 2}})
    assert text.index("| high | 50 | 50 | +20 (+0 to +25), right_K2_m6 | 3 |") < text.index("| low |")
    assert "Families with a gain of at least 15 points: high." in text
