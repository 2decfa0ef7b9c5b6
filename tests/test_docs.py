"""Documentation pages: code runs, commands and flags exist, links lead somewhere."""

import pathlib
import re

import jax
import pytest

from mass_jax.tasks.registry import CATALOGUE

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not p.is_relative_to(DOCS / "results"))


def page_id(path: pathlib.Path) -> str:
    return path.relative_to(DOCS).as_posix()


WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.fixture
def catalogue():
    """Restores the catalogue of tasks, in which a page registers its own."""
    before = dict(CATALOGUE)
    yield
    CATALOGUE.clear()
    CATALOGUE.update(before)


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("page", WITH_CODE, ids=page_id)
def test_python_examples_run_in_order(page, capsys, monkeypatch, tmp_path):
    """The blocks of a page share one namespace, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for block in blocks:
            exec(compile(block, page_id(page), "exec"), namespace)
    assert bool(capsys.readouterr().out) == any("print(" in block for block in blocks)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist(page):
    for module in re.findall(r"-m (experiments(?:\.\w+)+)", page.read_text(encoding="utf-8")):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_functions_named_exist(page):
    """Names such as `method.score.scores` are found in the file of their module."""
    for name in re.findall(
        r"`((?:method|metagrad|training|tasks|llama)(?:\.\w+){2,})`", page.read_text(encoding="utf-8")
    ):
        parts = name.split(".")
        stems = [ROOT / "mass_jax" / "/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
        sources = [p for stem in stems for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()]
        assert sources, name
        assert parts[-1] in sources[0].read_text(encoding="utf-8"), name
