"""Tests of the testbed's domain and problem sets."""

import collections

import pytest

from mass_jax.tasks.testbed import RULES, SUBJECTS, Domain, Split, draw_problems, meta_operators, oracle_examples


@pytest.fixture(scope="module")
def domain():
    return Domain.generate(seed=11)


def test_domain_balances_classes_and_rules(domain):
    per_class = collections.Counter(operator.true_class for operator in domain.operators.values())
    assert set(per_class.values()) == {4}
    assert set(collections.Counter(domain.class_rules.values()).values()) == {8}


def test_folk_class_accuracy_matches_subjects(domain):
    for subject, share in SUBJECTS.items():
        members = [operator for operator in domain.operators.values() if operator.subject == subject]
        right = sum(domain.class_rules[o.folk_class] == domain.class_rules[o.true_class] for o in members)
        assert len(members) == 32
        assert right == round(32 * share)


def test_domain_names_are_distinct(domain):
    words = [*domain.operators, *domain.class_rules, *RULES, *SUBJECTS]
    assert len(set(words)) == len(words)


def test_cells_hold_out_a_tenth(domain):
    held_out, kept = domain.cells(held_out=True), domain.cells(held_out=False)
    assert len(held_out) + len(kept) == 160 * 100
    assert 0.09 < len(held_out) / 16_000 < 0.11
    assert not set(held_out) & set(kept)


def test_values_fit_two_digits(domain):
    assert all(0 <= domain.value(*cell) <= 99 for cell in domain.cells(held_out=True))


def test_domain_save_load_round_trip(domain, tmp_path):
    domain.save(tmp_path / "domain.json")
    assert Domain.load(tmp_path / "domain.json") == domain


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"seed": 1}', '{"seed": 1, "class_rules": {}, "operators": [{"x": 1}]}'],
    ids=["empty", "list", "missing keys", "bad operator"],
)
def test_domain_load_names_damaged_file(content, tmp_path):
    path = tmp_path / "domain.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"domain\.json.*pretrain_tiny"):
        Domain.load(path)


def test_splits_are_disjoint(domain):
    train, seen, unseen = (draw_problems(domain, split, 300, seed=3) for split in Split)
    trained_on = {problem.cluster for problem in train}
    assert {problem.cluster for problem in seen} <= trained_on | set(meta_operators(domain, 3)[0])
    assert not {problem.cluster for problem in unseen} & trained_on
    assert not {p.id for p in train} & {p.id for p in seen}
    for problem in seen + unseen:
        x, operator, y = problem.problem.split()
        assert domain.is_held_out(operator, int(x), int(y))


def test_meta_operators_halve_each_subject(domain):
    seen, unseen = meta_operators(domain, seed=5)
    assert len(seen) == len(unseen) == 80
    assert set(collections.Counter(domain.operators[name].subject for name in seen).values()) == {16}


def test_draw_problems_depends_on_seed(domain):
    assert draw_problems(domain, Split.TRAIN, 50, 1) == draw_problems(domain, Split.TRAIN, 50, 1)
    assert draw_problems(domain, Split.TRAIN, 50, 1) != draw_problems(domain, Split.TRAIN, 50, 2)


def test_draw_problems_reports_available_count(domain):
    with pytest.raises(ValueError, match="100000 problems requested"):
        draw_problems(domain, Split.SEEN, 100_000, 0)


def test_oracle_examples_match_operator(domain):
    problem = draw_problems(domain, Split.UNSEEN, 1, 0)[0]
    for example in oracle_examples(domain, problem, 6, 0):
        x, operator, y = example.problem.split()
        assert operator == problem.cluster
        assert int(example.solution.replace(" ", "")) == domain.value(operator, int(x), int(y))
        assert not domain.is_held_out(operator, int(x), int(y))


@pytest.mark.parametrize("held_out", [True, False])
def test_cells_of_operators_are_those_of_all(domain, held_out):
    name = list(domain.operators)[3]
    of_all = [cell for cell in domain.cells(held_out) if cell[0] == name]
    assert domain.cells(held_out, [name]) == of_all != []
