"""Tests of the screen on the embedded model: real adaptation, resuming, report."""

import collections
import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest

from mass_jax import runtime, stats
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import screen, screen_report, screen_store
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
    for family, result in summary["families"].items():
        assert result["other_family"] in families - {family}
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


@pytest.mark.parametrize("flag", ["families_train", "families_test", "reasoning_train", "reasoning_test"])
def test_screen_keeps_finished_families_when_the_list_changes(flag, screened, components):
    config = dataclasses.replace(components.config, **{flag: ("addition",)})
    before = {path: path.stat().st_mtime_ns for path in (screened[1] / "families").glob("*.json")}
    with runtime.stop_on_signals() as stop:
        again = screen.screen(dataclasses.replace(components, config=config), PLAN, screened[1], stop)
    assert again["families"].keys() == screened[0]["families"].keys()
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("plan", "config", "message"),
    [({"shots": 3}, {}, "shots=2, now it is 3"), ({}, {"inner_lr": 0.5}, "inner_lr=0.2, now it is 0.5")],
)
def test_screen_refuses_other_settings(plan, config, message, screened, components):
    changed = dataclasses.replace(components, config=dataclasses.replace(components.config, **config))
    with (
        runtime.stop_on_signals() as stop,
        pytest.raises(UserError, match=f"measured with other settings: {message}; give another --workdir"),
    ):
        screen.screen(changed, dataclasses.replace(PLAN, **plan), screened[1], stop)


def test_family_of_an_earlier_version_is_read(tmp_path):
    """It lacks settings that were added since, which count as unchanged at their defaults only."""
    path = screen_store.path_of(tmp_path, "a/b c")
    settings = json.loads(json.dumps(dataclasses.asdict(PLAN) | {"config": json.loads(Config().to_json())}))
    older = settings | {"config": {name: value for name, value in settings["config"].items() if name != "scan_unroll"}}
    result = {"cells": {}, "best": "right_K2_m4", "best_gain": 0.5, "seconds": 1.0}
    screen_store.write_family(path, older, result)
    assert screen_store.read_family(path, settings) == result
    changed = settings | {"config": settings["config"] | {"scan_unroll": 2}}
    with pytest.raises(UserError, match="scan_unroll=1, now it is 2"):
        screen_store.read_family(path, changed)


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {}}', '{"settings": {"config": {}}, "result": {}}'])
def test_damaged_family_is_named(text, tmp_path):
    path = screen_store.path_of(tmp_path, "a")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=r"a.json is damaged; remove it, or give another --workdir"):
        screen_store.read_family(path, {"config": {}})


def test_few_shot_prompt_does_not_change_the_adaptations(screened, components, tmp_path):
    with runtime.stop_on_signals() as stop:
        again = screen.screen(components, dataclasses.replace(PLAN, shots=6), tmp_path, stop)
    for family, result in again["families"].items():
        assert result["cells"]["right_K2_m4"] == screened[0]["families"][family]["cells"]["right_K2_m4"]


def test_screen_names_unusable_plans(components, tmp_path):
    with pytest.raises(UserError, match="--screen_problems=5 is not a multiple of --screen_groups=2"):
        screen.Plan(problems=5, groups=2)
    with pytest.raises(UserError, match="--screen_steps=2,4,2 has a number twice"):
        screen.Plan(steps=(2, 4, 2))
    with runtime.stop_on_signals() as stop:
        with pytest.raises(UserError, match="raise --num_train_problems"):
            screen.screen(components, dataclasses.replace(PLAN, problems=40), tmp_path, stop)
        with pytest.raises(UserError, match=r"--screen_examples=999: .* requested, but .*; lower it"):
            screen.screen(components, dataclasses.replace(PLAN, examples=(999,)), tmp_path, stop)


def test_kept_needs_fifteen_points():
    assert screen.kept({"a": {"best_gain": 0.15}, "b": {"best_gain": 0.14}}) == ["a"]


def test_markdown_sorts_families_by_gain():
    cell = {"accuracy": 0.5, "gain_ci95": [0.0, 0.25], "right": [0, 1, 0, 1]}
    cells = {"base": cell, "right_K2_m6": cell, "right_K4_m6": cell}
    result = {"cells": cells, "best": "right_K2_m6", "seconds": 3.0}
    families = {"low": result | {"best_gain": 0.0}, "high": result | {"best_gain": 0.2}}
    text = screen_report.markdown({"families": families, "kept": ["high"], "settings": {"problems": 4, "groups": 2}})
    assert text.index("| high | 50 | 50 | 50 | +20 (+0 to +25), right_K2_m6 | +0 (+0 to +0) | 3 |") < text.index(
        "| low |"
    )
    assert "Families with a gain of at least 15 points: high." in text


def test_markdown_of_one_cell_has_no_held_out_gain(screened):
    text = (screened[1] / "screen.md").read_text()
    assert "best gain over Base | s |" in text
    assert "held-out" not in text


def test_held_out_gain_has_no_bias_from_choosing_a_cell():
    rng, best, held_out = np.random.default_rng(0), [], []
    for _ in range(300):  # six cells that are no better than Base
        rights = rng.integers(0, 2, (7, 32))
        cells = {"base": {"right": rights[0]}} | {f"right_K{i}_m6": {"right": rights[i]} for i in range(1, 7)}
        best.append(float((rights[1:] - rights[0]).mean(-1).max()))
        held_out.append(screen_report.held_out_gain(cells, 4).mean)
    assert np.mean(best) > 0.05
    assert abs(np.mean(held_out)) < 4 * np.std(held_out) / len(held_out) ** 0.5


def test_held_out_gain_of_one_cell_is_its_gain():
    rights = np.random.default_rng(1).integers(0, 2, (2, 32))
    cells = {"base": {"right": rights[0].tolist()}, "right_K2_m6": {"right": rights[1].tolist()}}
    cells["wrong_K2_m6"] = cells["few_shot"] = {"right": [1] * 32}  # never chosen
    groups = [str(number // 8) for number in range(32)]
    assert screen_report.held_out_gain(cells, 4) == pytest.approx(stats.clustered_mean(rights[1] - rights[0], groups))


def test_figure_shows_solver_grpo_where_a_family_has_it(tmp_path):
    cells = {name: {"accuracy": 0.5} for name in ("base", "few_shot", "right_K2_m6", "solver_grpo")}
    result = {"cells": cells, "best": "right_K2_m6", "best_gain": 0.0}
    without = result | {"cells": {name: cell for name, cell in cells.items() if name != "solver_grpo"}}
    for families, shown in (({"a": result, "b": without}, [50, math.nan]), ({"a": without, "b": without}, None)):
        figure = screen_report.draw({"families": families}, tmp_path / "screen.png")
        assert len(figure.axes[0].lines) == (3 if shown is None else 4)
        if shown:
            np.testing.assert_array_equal(figure.axes[0].lines[-1].get_xdata(), shown)


def test_solver_grpo_needs_as_many_other_problems(components, caplog, tmp_path):
    config = dataclasses.replace(
        components.config, steps=1, warmup_steps=0, tasks_per_step=2, num_attempts=2, num_examples=2
    )
    plan = screen.Plan(problems=6, groups=2, steps=(2,), examples=(4,), shots=2, solver_grpo=True)
    pools = collections.Counter(problem.subject for problem in components.problems(0).train)
    with runtime.stop_on_signals() as stop:
        found = screen.screen(dataclasses.replace(components, config=config), plan, tmp_path, stop)["families"]
    large = {family for family, count in pools.items() if count >= 12}
    assert 0 < len(large) < len(pools)
    assert {family for family, result in found.items() if "solver_grpo" in result["cells"]} == large
    assert sum("no Solver GRPO: the family has" in record.getMessage() for record in caplog.records) == 3
    assert "| solver_grpo |" in (tmp_path / "screen.md").read_text()
