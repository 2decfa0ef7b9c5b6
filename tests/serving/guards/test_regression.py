"""Regression suite file: accepted encodings and error messages."""

import pytest

from mass_jax.errors import UserError
from mass_jax.serving.guards.regression import read_suite

LINES = '{"prompt": "a", "completion": "b"}\n\n{"prompt": "c", "completion": "é"}\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_suite_reads_unicode_encodings(tmp_path, encoding):
    path = tmp_path / "suite.jsonl"
    path.write_bytes(LINES.encode(encoding))
    assert read_suite(path, tmp_path, None) == [("a", "b"), ("c", "é")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LINES.encode("latin-1"), ":3: not UTF-8 .byte 0xe9"),
        (LINES.encode() + b'{"prompt": "d"}\n', ':4 needs strings "prompt" and "completion"'),
        (LINES.encode() + b'{"prompt": "\\ud800", "completion": "x"}\n', ":4 needs strings"),
        (LINES.encode() + b"[" * 100_000, ":4: nested too deeply"),
        (b"", "has 0 texts; give 1 to 256"),
    ],
)
def test_suite_names_the_bad_line(tmp_path, data, message):
    path = tmp_path / "suite.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read_suite(path, tmp_path, None)
    assert "\n" not in str(error.value)
