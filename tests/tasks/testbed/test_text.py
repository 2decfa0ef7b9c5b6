"""Tests of the testbed's pretraining text."""

import collections
import itertools
import re

import pytest

from mass_jax.tasks.testbed import STYLES, Domain, OperatorTask, pretraining_pairs, vocabulary
from mass_jax.tasks.testbed.text import BELIEFS


@pytest.fixture(scope="module")
def domain():
    return Domain.generate(seed=11)


@pytest.fixture(scope="module")
def pairs(domain):
    return list(itertools.islice(pretraining_pairs(domain, seed=0), 40_000))


def test_pretraining_pairs_match_style_shares(pairs):
    counts = collections.Counter(completion.split()[0] for prompt, completion in pairs if prompt.startswith("practice"))
    for style, share in STYLES.items():
        assert counts[style] / 20_000 == pytest.approx(share, abs=0.015)
    assert sum(STYLES.values()) == pytest.approx(1)
    assert sum(BELIEFS.values()) == pytest.approx(1)


def test_pretraining_pairs_exclude_held_out_cells(domain, pairs):
    cells = {cell for pair in pairs for text in pair for cell in re.findall(r"(\d) ([a-z]+) (\d)", text)}
    assert len(cells) > 10_000
    assert not any(domain.is_held_out(operator, int(x), int(y)) for x, operator, y in cells)


def test_pretraining_examples_parse(domain, pairs):
    task, known = OperatorTask(domain), set(vocabulary(domain))
    for prompt, completion in pairs[:4000]:
        assert set(prompt.split()) | set(completion.split()) <= known
        if prompt.startswith("practice"):
            parsed = task.parse_example(completion, "no target")
            assert not hasattr(parsed, "reason"), completion


def test_useful_depends_on_style(domain, pairs):
    task = OperatorTask(domain)
    useful = collections.defaultdict(list)
    for prompt, completion in pairs[:8000]:
        if prompt.startswith("practice"):
            target = prompt.split()[2]
            problem = type("P", (), {"cluster": target})
            useful[completion.split()[0]].append(task.useful(problem, task.parse_example(completion, "")))
    assert all(useful["careful"])
    assert not any(useful["detour"])
    assert sum(useful["guess"]) / len(useful["guess"]) < 0.5
