"""Property-based test: every function that parses model output returns in bounded time."""

import functools

import hypothesis
import pytest
from hypothesis import strategies as st

from experiments.stress.fuzz import SomeToWorkers, measure
from experiments.stress.fuzz_readers import make_readers
from experiments.stress.fuzz_texts import KINDS, MAX_CHARS, fragments, make_text

MAX_MS = 250  # five times the limit of `experiments.stress.fuzz`, since tests share the machine

quiet = hypothesis.settings(
    derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=list(hypothesis.HealthCheck)
)


@functools.cache
def readers():
    made = make_readers(SomeToWorkers(None, 0.0), load_tokenizer=False)
    for reader in made.values():
        reader("The answer is 12.")
    return made


@st.composite
def repeated(draw):
    """Fragments of the readers' patterns or random characters, repeated up to 100,000 characters."""
    pieces = st.sampled_from(fragments()) | st.text(max_size=6) | st.text("{}()[]\\$^_.,/0123456789 \n", max_size=6)
    body = "".join(draw(st.lists(pieces, min_size=1, max_size=4)))
    times = draw(st.sampled_from([1, 10, 1000, MAX_CHARS])) // max(1, len(body))
    start, end = draw(pieces), draw(pieces)
    return (start + body * max(1, times))[: MAX_CHARS - len(end)] + end


@st.composite
def generated(draw):
    """A text of `experiments.stress.fuzz`."""
    number = draw(st.integers(0, 10**9)) * len(KINDS) + draw(st.integers(0, len(KINDS) - 1))
    return make_text(draw(st.integers(0, 10**6)), number)[1]


@pytest.mark.parametrize("texts", [repeated(), generated(), st.text()], ids=["repeated", "generated", "any"])
def test_readers_return_in_time(texts):
    @quiet
    @hypothesis.given(texts)
    def check(text):
        for name, reader in readers().items():
            outcome, spent = measure(reader, text, MAX_MS)
            assert spent <= MAX_MS, (name, spent, text[:200])
            assert not outcome.startswith("lost"), (name, outcome, text[:200])
            assert outcome != "right", (name, text[:200])

    check()
