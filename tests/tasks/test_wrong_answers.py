"""Property tests of wrong answers."""

import collections

from hypothesis import given
from hypothesis import strategies as st

from mass_jax.tasks.base import Example
from mass_jax.tasks.wrong_answers import wrong_answers


@given(st.lists(st.sampled_from("12345"), max_size=12))
def test_wrong_answers_permutes_and_changes_all_solutions_if_it_can(solutions):
    examples = [Example(f"problem {i}", solution) for i, solution in enumerate(solutions)]
    changed = wrong_answers(examples)
    assert [e.problem for e in changed] == [e.problem for e in examples]
    counts = collections.Counter(solutions)
    assert collections.Counter(e.solution for e in changed) == counts
    if counts and 2 * max(counts.values()) <= len(solutions):
        assert all(new.solution != old.solution for new, old in zip(changed, examples, strict=True))
