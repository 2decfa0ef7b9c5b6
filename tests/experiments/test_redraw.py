"""Tests for experiments.tools.redraw on committed results."""

import json
import pathlib
import shutil

from experiments.tools.redraw import redraw

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"


def test_redraw_rewrites_existing_figures(tmp_path):
    for name in ("metagrad/metagrad", "sampling/sampling", "plan/70b/plan"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(RESULTS / f"{name}.json", tmp_path / f"{name}.json")
    (tmp_path / "metagrad" / "metagrad.png").touch()
    (tmp_path / "sampling" / "sampling.png").touch()
    written = redraw(tmp_path)
    assert {path.name for path in written} == {"metagrad.png", "sampling.png"}
    assert all(path.stat().st_size and path.with_suffix(".svg").stat().st_size for path in written)


def test_redraw_skips_figures_without_data(tmp_path):
    old = json.loads((RESULTS / "tiny" / "table1.json").read_text(encoding="utf-8"))
    del old["columns"]
    (tmp_path / "table1.json").write_text(json.dumps(old))
    for name in ("accuracy.png", "gain_by_subject.png", "training.png"):
        (tmp_path / name).write_text("old")
    assert redraw(tmp_path) == []
    assert (tmp_path / "accuracy.png").read_text() == "old"


def test_committed_figures_have_both_formats():
    pictures = [path for path in RESULTS.rglob("*.png") if path.name != "training.png"]  # needs the metrics of a run
    assert pictures
    assert all(path.with_suffix(".svg").is_file() for path in pictures)
