"""Tests for experiments.benchmarks.partial: files of other measurements and damaged ones."""

import pytest

from experiments.benchmarks.partial import Parts
from mass_jax.errors import UserError


def test_parts_of_another_measurement_are_refused(tmp_path):
    Parts(tmp_path / "parts.json", {"seed": 1}).keep("a", 1)
    with pytest.raises(UserError, match="holds parts of another measurement"):
        Parts(tmp_path / "parts.json", {"seed": 2})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"parts": {}}'])
def test_damaged_parts_are_refused(tmp_path, text):
    (tmp_path / "parts.json").write_text(text)
    with pytest.raises(UserError, match="is damaged; remove it"):
        Parts(tmp_path / "parts.json", {})


def test_finish_removes_file(tmp_path):
    parts = Parts(tmp_path / "parts.json", {})
    parts.keep("a", 1)
    parts.finish()
    assert list(tmp_path.iterdir()) == []
