"""Bodies of requests: anything is a question or is refused in one line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mass_jax.serving.web.requests import MOST_ID_CHARS, Refused, parse
from mass_jax.serving.web.responses import error_response

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
BODIES = st.binary(max_size=60) | st.builds(
    lambda row: json.dumps(row).encode(),
    st.dictionaries(st.sampled_from(("problem", "id", "stream", "\n")), VALUES, max_size=3) | VALUES,
)


@settings(max_examples=300, deadline=None, database=None)
@given(BODIES)
def test_parse_accepts_or_refuses_any_body(body):
    try:
        asked = parse(body)
    except Refused as refused:
        response = error_response(str(refused), refused.status)
    else:
        response = None
        assert isinstance(asked.question.problem, str)
        assert 1 <= len(asked.question.id) <= MOST_ID_CHARS
    if response is not None:
        assert 400 <= response.status_code < 500
        assert response.body.isascii()
        assert response.body.count(b"\n") == 1
        assert "\n" not in json.loads(response.body)["error"]


def test_parse_draws_distinct_ids():
    asked = [parse(b'{"problem": "4 kabo 3", "id": null}') for _ in range(2)]
    assert asked[0].question.id != asked[1].question.id
    assert not asked[0].named


@pytest.mark.parametrize("name", ['"7"', "7"])
def test_parse_keeps_given_id(name):
    asked = parse(b'{"problem": "4 kabo 3", "stream": false, "id": %s}' % name.encode())
    assert (asked.question.id, asked.named, asked.stream) == ("7", True, False)
