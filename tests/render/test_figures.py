"""Every figure of the project: files, labels, legibility. Structure is compared, never pixels."""

import ast
import pathlib
import re
import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from experiments import bench_metagrad
from experiments.benchmarks import sampling_report
from mass_jax.evaluation.report import figures
from mass_jax.evaluation.report.table import make_table
from mass_jax.metagrad.signal import Interval
from mass_jax.planning import plan_page
from mass_jax.render import plot
from mass_jax.training import estimator_page
from mass_jax.training.estimators import EstimatorRow

ROOT = pathlib.Path(__file__).parents[2]
LABELS = {
    "base": "Base",
    "few_shot": "Few-shot base",
    "majority": "Base, majority vote",
    "ttt_other": "TTT on another subject",
    "mass": "MASS",
    "mass_unadapted": "MASS_gold weights, no adaptation",
    "mass_shuffled": "Control: generator not rewarded",
}
COST = {"tokens_written": 1, "tokens_trained": 2, "flops": 1e9, "seconds": 0.1, "verdict": "wrong"}


def table_of(subjects, columns=("unseen", "seen"), count=60):
    rng = np.random.default_rng(0)

    def records():
        return [
            {"id": f"p{i}", "cluster": f"p{i}", "subject": subjects[i % len(subjects)], "seed": 0, "column": column}
            | {"right": int(rng.integers(2))}
            | COST
            for column in columns
            for i in range(count)
        ]

    methods = ["base", "few_shot", "majority", "ttt_other", "mass"]
    return make_table({name: records() for name in LABELS}, LABELS, methods, ["mass_shuffled"])


def runs_of(steps):
    rng = np.random.default_rng(0)
    names = [metric for metric, *_ in figures.CURVES]
    return {
        run: [{"step": step} | {name: float(rng.random()) for name in names} for step in range(steps)]
        for run in ("mass", "mass_gold", "mass_shuffled")
    }


HBM = 16 * plan_page.GIB
HELD = {
    "weights": 2 * plan_page.GIB,
    "optimizer": plan_page.GIB,
    "scorer": plan_page.GIB // 2,
    "hbm": HBM,
    "temporaries": plan_page.GIB,
}
PHASES = [
    HELD | {"phase": "adapt + meta-gradient", "total": 4 * plan_page.GIB, "refused": None},
    HELD | {"phase": "ReverseUnroll with remat", "total": 40 * plan_page.GIB, "refused": "RESOURCE_EXHAUSTED"},
]
PLAN = {"model": "meta-llama/Llama-3.1-70B-Instruct", "topology": "v5p:4x4x4", "num_slices": 2}
CHIPS = [
    {"phase": "adapt + meta-gradient", "chips": chips, "topology": f"v5e:{chips}", "refused": None}
    | {"total": 64 * plan_page.GIB // chips, "temporaries": 32 * plan_page.GIB // chips}
    for chips in (8, 16, 64)
]
ADJOINTS = ["ReverseUnroll", "ReverseUnroll(step)", "MixedMode", "WeightedMixedMode", "FirstOrder", "peer: plain JAX"]
TIMES = [
    {"adjoint": name, "seconds": 2.0 + i, "temp_bytes": 2.0 ** (25 + i), "optimizer": "sgd", "m": 12, "K": 2}
    | {"model": "Llama 16x2048, vocabulary 128256, LoRA rank 16"}
    for i, name in enumerate(ADJOINTS)
]
RATES = {"samples": 12, "prompt_tokens": 41, "new_tokens": 64}
RATES["seconds"] = {
    "1 sample": {"ours": [2.9, 2.7], "torch": [4.4, 4.2]},
    "12 tasks": {"shared adapter": [8.0, 8.2], "own adapters": [8.6, 9.5]},
    "LoRA gradient": {"torch": [2.9, 2.6], "ours": [2.5, 2.6]},
}
SUBJECTS = ["Counting & Probability", "$x_1$ {\\bad", "Prealgebra"]
CORRELATION = {"leave_one_out": Interval(0.8, 0.7, 0.9, 4)}
ESTIMATORS = {
    "sgd 0.2, K=2": {
        "exact": EstimatorRow("", 2.0, 1.0, 8, 0, CORRELATION),
        "truncated:1": EstimatorRow("", 1.0, 0.5, 8, 0, CORRELATION),
    },
    "adam 0.03, eps_root 0.01, K=8": {
        "exact": EstimatorRow("", 2.0, 1.0, 8, 0, CORRELATION),
        "evolution:16": EstimatorRow("", 24.0, 12.0, 8, 0, CORRELATION),
    },
}
MEASUREMENT = {"task": "testbed", "problems": 4, "estimators": ["truncated:1", "evolution:16"]}
FIGURES = {
    "accuracy": lambda path: figures.accuracy(table_of(["a"], count=6), path),
    "accuracy of one column": lambda path: figures.accuracy(table_of(["a"], ["test"], 6), path),
    "gain_by_subject": lambda path: figures.gain_by_subject(table_of(SUBJECTS, ["test"]), path),
    "training_curves": lambda path: figures.training_curves(runs_of(120), path, 20, LABELS),
    "training_curves of 8 steps": lambda path: figures.training_curves(runs_of(8), path, 20, LABELS),
    "figure": lambda path: plan_page.figure(PLAN, PHASES, path),
    "figure without a known memory": lambda path: plan_page.figure(PLAN, [PHASES[0] | {"hbm": None}], path),
    "chips_figure of refused plans": lambda path: plan_page.chips_figure(
        [CHIPS[0] | {"refused": "RESOURCE_EXHAUSTED"}], path
    ),
    "chips_figure": lambda path: plan_page.chips_figure(CHIPS, path),
    "figure of times": lambda path: bench_metagrad.figure(TIMES, path),
    "figure of estimators": lambda path: estimator_page.figure(MEASUREMENT, ESTIMATORS, path),
    "draw": lambda path: sampling_report.draw(RATES, path),
}


@pytest.fixture(scope="module", params=FIGURES)
def drawn(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("figure") / "drawn.png"
    figure = FIGURES[request.param](path)
    with matplotlib.rc_context(fname=str(plot.STYLE)):
        return figure, path, texts_of(figure)


def texts_of(figure):
    """Texts that the saved figure shows, with their boxes in pixels."""
    figure.draw_without_rendering()
    edges = {
        label
        for axes in figure.axes
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for major in (True, False)
        for place, label in zip(axis.get_ticklocs(minor=not major), axis.get_ticklabels(minor=not major), strict=False)
        if not min(limits) <= place <= max(limits)
    }
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text, text.get_window_extent()) for text in shown if text not in edges]


def test_figure_is_saved_as_png_and_svg(drawn):
    _, path, _ = drawn
    assert path.read_bytes().startswith(b"\x89PNG")
    svg = path.with_suffix(".svg").read_text(encoding="utf-8")
    assert xml.etree.ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<dc:date>" not in svg
    assert "<text" not in svg  # glyphs are paths: the same picture without the font


def test_figure_fits_one_column_legibly(drawn):
    figure, _, texts = drawn
    assert figure.get_figwidth() == plot.COLUMN
    for text, box in texts:
        assert text.get_fontsize() >= 7, text.get_text()
        assert figure.bbox.x0 - 2 <= box.x0 < box.x1 <= figure.bbox.x1 + 2, text.get_text()
        assert figure.bbox.y0 - 2 <= box.y0 < box.y1 <= figure.bbox.y1 + 2, text.get_text()


def test_figure_texts_do_not_overlap(drawn):
    *_, boxes = drawn
    for number, (text, box) in enumerate(boxes):
        for other, other_box in boxes[:number]:
            overlap = np.array([min(box.x1, other_box.x1), min(box.y1, other_box.y1)]) - [
                max(box.x0, other_box.x0),
                max(box.y0, other_box.y0),
            ]
            assert not (overlap > 2).all(), (text.get_text(), other.get_text())


def test_figure_axes_have_units(drawn):
    figure, *_ = drawn
    for axes in figure.axes:
        names = [axes.get_ylabel()] if axes.get_ylabel() else []
        names += [axes.get_xlabel()] if axes.get_xlabel() else []
        assert names
        assert all(re.search(r"\(.+\)|step|number of", name) for name in names)
    assert all(axes.get_xlabel() for axes in figure.axes if axes.get_subplotspec().is_last_row())


def opens_figure(function):
    opened = (item.context_expr for node in ast.walk(function) if isinstance(node, ast.With) for item in node.items)
    return any(isinstance(call, ast.Call) and ast.unparse(call.func) == "plot.figure" for call in opened)


def test_figure_functions_are_all_tested():
    defined = {
        function.name
        for source in (*(ROOT / "mass_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py"))
        for function in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef) and opens_figure(function)
    }
    assert defined <= {name.split()[0] for name in FIGURES}


def test_figure_files_are_reproducible(tmp_path):
    for name in ("a", "b"):
        plan_page.chips_figure(CHIPS, tmp_path / f"{name}.png")
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_figure_is_not_saved_after_an_error(tmp_path):
    with pytest.raises(KeyError), plot.figure(tmp_path / "a.png", 2):
        raise KeyError
    assert not list(tmp_path.iterdir())


# Machado, Oliveira and Fernandes (2009): what protanopes, deuteranopes and tritanopes see of linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colors_differ_for_color_blind_readers(deficiency):
    linear = np.array([to_rgb(color) for color in plot.COLORS]) ** 2.2
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1) ** (1 / 2.2)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distances[np.triu_indices(len(seen), 1)].min() > 0.1


def test_style_colors_are_those_of_the_module(tmp_path):
    with plot.figure(tmp_path / "a.png", 2) as figure:
        lines = [figure.add_subplot().plot([0], [0])[0] for _ in range(1)]
        assert lines[0].get_color() == plot.COLORS[0]
        assert FontProperties(family=["DejaVu Sans"]).get_name() == lines[0].axes.xaxis.label.get_fontname()
    assert len(plot.COLORS) == len(plot.MARKERS) == len(plot.DASHES) == len(set(plot.MARKERS))
