"""Tests for mass_jax.runtime.jsonl: users' files, logs after crashes, and round trips."""

import contextlib
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.strict_json import MOST_DIGITS

ROWS = [{"a": "é\u2028\x85"}, {"a": [1, {"b": None}]}, {"a": 0.5}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


SPELLINGS = {
    "plain": LINES.encode(),
    "no last newline": LINES[:-1].encode(),
    "byte order mark": LINES.encode("utf-8-sig"),
    "byte order mark inside": "".join("\ufeff" + json.dumps(row) + "\n" for row in ROWS).encode(),
    "utf-16": LINES.encode("utf-16"),
    "utf-16 without mark": LINES.encode("utf-16-be"),
    "utf-32": LINES.encode("utf-32"),
    "crlf": LINES.replace("\n", "\r\n").encode(),
    "cr": LINES.replace("\n", "\r").encode(),
    "blank lines": LINES.replace("\n", "\n \t\n\n").encode(),
    "commas": LINES.replace("\n", ",\n").encode(),
    "array": json.dumps(ROWS).encode(),
    "array of lines": ("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n").encode(),
    "indented array": json.dumps(ROWS, indent=2).encode("utf-8-sig"),
    "array with a last comma": json.dumps(ROWS).removesuffix("]").encode() + b",]",
    "indented objects": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "one line": " ".join(map(json.dumps, ROWS)).encode(),
    "gzip": gzip.compress(LINES.encode(), mtime=0),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_read_accepts_common_spellings(path, spelling):
    path.write_bytes(SPELLINGS[spelling])
    assert [row.value for row in jsonl.read(path)] == ROWS


@pytest.mark.parametrize(
    ("data", "lines"),
    [(b'\n{"a": 1}\n\n{"a": 2}', [2, 4]), (b'[\n{"a":\n1},\n{"a": 2}]', [2, 4]), (b'{"a": 1}\r\n{"a": 2}\r\n', [1, 2])],
)
def test_read_numbers_lines(path, data, lines):
    path.write_bytes(data)
    assert [row.line for row in jsonl.read(path)] == lines


DAMAGED = {
    "not UTF-8 (byte 0xfc)": '{"a": "für"}'.encode("latin-1"),
    "nested too deeply": b'{"a": ' + b"[" * 200_000,
    "NUL bytes, as a crash leaves them": bytes(512),
    "key 'a' occurs more than once": b'{"a": 1, "b": 2, "a": 1}',
    "an integer of 4301 digits; write it as a string": b'{"a": -1' + b"0" * MOST_DIGITS + b"}",
    "not JSON (the text ends inside a value)": b'{"a": "cut',
    "not JSON (single quotes in place of double quotes)": b"{'a': 1}",
    "not JSON (a comma before the closing bracket)": b'{"a": 1,}',
    "not JSON (more than one value)": b'{"a": 1} trailing',
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_scan_reports_damaged_lines(path, reason):
    path.write_bytes(b'{"a": 1}\n' + DAMAGED[reason] + b'\n{"a": 2}\n')
    assert jsonl.scan(path) == [jsonl.Line(1, {"a": 1}), jsonl.DamagedLine(2, reason), jsonl.Line(3, {"a": 2})]
    with pytest.raises(UserError) as error:
        jsonl.read(path)
    assert str(error.value) == f"{path}:2: {reason}; fix the line or remove it"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"a": 1},\n{"a": 2}', ":2: the array is not closed"),
        (b'[{"a": 1},\n{"a": ?},\n{"a": 2}]', ":2: not JSON"),
        (b'[\n{"a": 1},\n{"a": "x', ":3: not JSON .the text ends inside a value"),
        (b"\xff\xd8\xff\xe0 a picture", ":1: not UTF-8 .byte 0xff"),
        ('{"a": 1}\n{"a": 2}'.encode("utf-16")[:-1], ":2: not UTF-16 .truncated data"),
        (gzip.compress(LINES.encode() * 99, mtime=0)[:-9], "is a damaged gzip file"),
        (b"PK\x03\x04\x14\x00", "is a zip archive; unpack it"),
        (b"PAR1\x15\x04", "is a Parquet file; name it .parquet"),
        (b"[" * 100_000, ":1: nested too deeply"),
    ],
)
@pytest.mark.parametrize("reader", [jsonl.scan, jsonl.read])
def test_readers_refuse_unreadable_files(path, reader, data, message):
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        reader(path)
    assert "\n" not in str(error.value)


def test_read_refuses_missing_files(path):
    for missing in (path, path.parent):
        with pytest.raises(UserError, match="cannot be read"):
            jsonl.read(missing)


def test_read_refuses_gzip_bombs(path, monkeypatch):
    monkeypatch.setattr(jsonl, "MOST_BYTES", 1000)
    path.write_bytes(gzip.compress(b" " * 1001))
    with pytest.raises(UserError, match="decompresses to more than 1000 bytes"):
        jsonl.read(path)


def test_loads_keeps_exact_digits():
    text = '{"a": 0.1000, "b": 1e-7, "c": ' + "7" * 6000 + ', "d": 12345678901234567890}'
    found = jsonl.loads(text, exact=True)
    assert [str(found["a"]), found["b"], found["d"]] == ["0.1000", Decimal("1e-7"), 12345678901234567890]
    assert str(found["c"]) == "7" * 6000
    with pytest.raises(jsonl.BadJson, match="too large an exponent"):
        jsonl.loads('{"a": 1e99999999999999999999}', exact=True)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=6)


@settings(max_examples=50, deadline=None)
@given(rows=OBJECTS, more=OBJECTS)
def test_read_log_inverts_append(rows, more):
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "rows.jsonl"
        jsonl.rewrite(path, rows)
        jsonl.append(path, more)
        log = jsonl.read_log(path)
        assert [row.value for row in log.rows] == rows + more
        assert (log.damaged, log.torn) == ([], [])
        assert [row.value for row in jsonl.read(path)] == rows + more


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200) | st.text("[]{},:\"'\\ \n\r\ufeff\0a1e-.tfn", max_size=60).map(str.encode))
def test_readers_raise_only_user_errors(data):
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "rows.jsonl"
        path.write_bytes(data)
        for reader in (jsonl.scan, jsonl.read, jsonl.read_log):
            with contextlib.suppress(UserError):
                reader(path)


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_read_log_drops_only_torn_line(path, cut):
    jsonl.rewrite(path, [{"step": i, "loss": 0.125} for i in range(3)])
    path.write_bytes(path.read_bytes()[:-cut])
    log = jsonl.read_log(path)
    whole = path.read_bytes().count(b"\n")
    assert [row.value["step"] for row in log.rows] == list(range(whole))
    assert [damaged.line for damaged in log.torn] == ([whole + 1] if path.read_bytes()[-1:] != b"\n" else [])


def test_read_log_reports_damaged_lines(path, caplog):
    path.write_bytes(b'{"step": 0}\n{"st\x00\x00\n[1]\n{"step": 3}\n')
    log = jsonl.read_log(path)
    assert [row.line for row in log.rows] == [1, 4]
    assert [damaged.line for damaged in log.damaged] == [2, 3]
    jsonl.warn_of_damage(path, log.damaged)
    assert f"{path}:2: NUL bytes" in caplog.text
    assert "the first of 2 damaged lines" in caplog.text


def test_dumps_refuses_nan():
    with pytest.raises(ValueError, match="JSON"):
        jsonl.dumps({"loss": float("nan")})


def test_jsonl_imports_without_jax():
    code = "import sys; from mass_jax.runtime import jsonl; import mass_jax.tasks.math; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
