"""What the report's figures draw, read back from their artists; files and legibility are tested in tests/render."""

import math

import numpy as np
import pytest

from mass_jax.evaluation.report import figures


def cell(mean, low, high):
    return {"accuracy": mean, "ci95": [low, high]}


def row(label, **columns):
    return {"label": label, "columns": columns}


TABLE = {
    "methods": {"base": row("Base", test=cell(0.5, 0.4, 0.6)), "mass": row("MASS", test=cell(0.7, 0.6, 0.78))},
    "references": {
        "oracle": row("Correct examples (reference)", test=cell(0.75, 0.7, 0.79)),
        "mass_shuffled": row("Control: rewards shuffled", test=cell(0.45, 0.4, 0.55)),
    },
    "columns": ["test"],
}


def series_of(axes):
    """Lines that have data, as arrays [point, 2]."""
    return [line.get_xydata() for line in axes.lines if len(line.get_xydata())]


@pytest.mark.parametrize(
    ("controls", "labels"),
    [
        (["mass_shuffled"], "Methods|Base|MASS|References|Correct examples|Controls|rewards shuffled"),
        ([], "Methods|Base|MASS|References|Correct examples|rewards shuffled"),
    ],
)
def test_accuracy_groups_rows(tmp_path, controls, labels):
    figure = figures.accuracy(TABLE | {"controls": controls}, tmp_path / "a.png")
    assert "|".join(text.get_text() for text in figure.axes[0].get_yticklabels()) == labels


def test_accuracy_draws_means_and_intervals(tmp_path):
    (axes,) = figures.accuracy(TABLE, tmp_path / "a.png").axes
    ranges = [points[:, 0].tolist() for points in series_of(axes)]
    np.testing.assert_allclose(np.concatenate(ranges[2:4]), [60, 78, 70])  # the second row: interval, then mean
    assert axes.get_xlim() == (0, 80)


@pytest.mark.parametrize("steps", [1, 2, 8, 31, 120])
def test_training_curves_cover_every_step(tmp_path, steps):
    rows = [{"step": step, "outer_loss": 1 / (step + 1)} for step in range(steps)]
    figure = figures.training_curves({"mass": rows}, tmp_path / "a.png", warmup=20)
    smooth, raw = series_of(figure.axes[0])
    assert raw[:, 0].tolist() == smooth[:, 0].tolist() == list(range(steps))
    left, right = figure.axes[0].get_xlim()
    assert left < 0
    assert steps - 1 < right <= steps + 2  # a longer warm-up does not squeeze a short run
    low, high = figure.axes[0].get_ylim()
    assert ((low < smooth[:, 1]) & (smooth[:, 1] < high)).all()
    assert figure.axes[0].lines[0].get_marker() not in ("", "None")


def test_training_curves_skip_missing_values(tmp_path):
    values = [1.0, None, math.nan, math.inf, 2.0]
    rows = [{"step": step} | ({"reward": value} if step else {}) for step, value in enumerate(values)]
    figure = figures.training_curves({"mass": rows, "mass_gold": []}, tmp_path / "a.png", warmup=0)
    assert series_of(figure.axes[1])[0].tolist() == [[4, 2]]
    assert [axes.texts[0].get_text() for axes in figure.axes if axes.texts] == ["no values"] * 5


def test_training_curves_keep_colors_of_runs(tmp_path):
    runs = {"mass": [{"step": 0, "reward": 1.0}], "mass_gold": [{"step": 0, "reward": 2.0, "outer_loss": 1.0}]}
    figure = figures.training_curves(runs, tmp_path / "a.png", 0, {"mass_gold": "MASS_gold"})
    colors = {
        line.get_color()
        for axes, value in zip(figure.axes, (1.0, 2.0), strict=False)  # the only run with a loss; the second of two
        for line in axes.lines
        if value in line.get_ydata()
    }
    assert len(colors) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mass", "MASS_gold"]


@pytest.mark.parametrize("length", [1, 2, 5, 9, 40])
@pytest.mark.parametrize("half", [0, 1, 4])
def test_moving_average_is_the_mean_of_neighbors(length, half):
    values = np.random.default_rng(length).normal(size=length)
    expected = [values[max(i - half, 0) : i + half + 1].mean() for i in range(length)]
    np.testing.assert_allclose(figures.moving_average(values, half), expected, rtol=1e-12, atol=1e-12)


def test_gain_by_subject_needs_a_second_method(tmp_path):
    table = {"methods": {"base": row("Base")}, "subjects": {"base": {}}, "subject_details": {"base": {}}}
    assert figures.gain_by_subject(table, tmp_path / "a.png") is None
    assert not list(tmp_path.iterdir())


def test_gain_by_subject_draws_intervals_and_counts(tmp_path):
    details = {"problems": 20, "ci95": [0.1, 0.3], "gain": 0.25, "gain_ci95": [-0.05, 0.5]}
    few = details | {"problems": 19}
    table = {"methods": TABLE["methods"], "subjects": {"base": {"algebra": 0.2, "geometry": 0.3}}}
    table["subject_details"] = {name: {"algebra": details, "geometry": few} for name in ("base", "mass")}
    (axes,) = figures.gain_by_subject(table, tmp_path / "a.png").axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["algebra\nn = 20"]
    interval, mean, _ = series_of(axes)
    np.testing.assert_allclose(interval[:, 0], [-5, 50])
    np.testing.assert_allclose(mean[:, 0], [25])
