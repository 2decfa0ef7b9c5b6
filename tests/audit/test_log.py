"""Event log on disk, with writers that are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from mass_jax.audit.chain import Broken
from mass_jax.audit.log import EventLog, records, verify
from mass_jax.errors import UserError

WRITER = """
import pathlib, sys
from mass_jax.audit.log import EventLog
with EventLog(pathlib.Path(sys.argv[1])) as log, open(sys.argv[2], "ab", 0) as released:
    for i in range(100_000):
        for record in log.append({"i": i, "text": "x" * 3000}, {"i": i, "more": True}):
            released.write(b"%d %s\\n" % (record["number"], record["hash"].encode()))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit" / "events.jsonl"


def written(path, count=4):
    with EventLog(path) as log:
        for i in range(count):
            log.append({"kind": "note", "i": i})
    return path.read_bytes()


def test_killed_writers_lose_no_record(path, tmp_path):
    """Ten rounds of two writers of one log, each ended by SIGKILL."""
    rng, released = random.Random(0), [tmp_path / "a", tmp_path / "b"]
    for _ in range(10):
        before = path.stat().st_size if path.exists() else 0
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(out)]) for out in released]
        deadline = time.monotonic() + 120
        while not path.exists() or path.stat().st_size < before + 20_000:
            assert time.monotonic() < deadline
            assert all(writer.poll() is None for writer in writers)
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    written(path, 1)  # repairs the last kill's damage
    checked = verify(path)
    assert checked.notes == []
    hashes = {record["number"]: record["hash"] for record, _ in records(path)}
    lines = [line.split() for out in released for line in out.read_text().split("\n")[:-1]]
    assert len(lines) > 100
    assert all(hashes[int(number)] == digest for number, digest in lines)
    assert sorted(hashes) == list(range(1, checked.head.number + 1))
    assert {file.name for file in path.parent.glob(f"{path.name}*")} <= {
        path.name + end for end in ("", ".head", ".torn")
    }


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_log_moves_torn_line_aside(path, cut):
    whole = written(path)
    torn = b'{"kind":"adaptation","x":"' + b"y" * 60
    path.write_bytes(whole + torn[:cut])
    assert "unfinished" in verify(path).notes[0]
    with EventLog(path) as log:
        log.append({"kind": "next"})
    kinds = [record["kind"] for record, _ in records(path)]
    assert kinds == ["note"] * 4 + ["repair", "next"]
    assert verify(path).notes == []
    assert path.with_name("events.jsonl.torn").read_bytes() == torn[:cut] + b"\n"


def test_log_repairs_outdated_head(path):
    written(path, 2)
    head = path.with_name("events.jsonl.head")
    before = head.read_bytes()
    written(path, 2)
    head.write_bytes(before)
    assert "2 records behind" in verify(path).notes[0]
    written(path, 1)
    assert verify(path).notes == []


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_log_detects_lost_tail(path, lines):
    whole = written(path)
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
    for use in (verify, EventLog):
        with pytest.raises(Broken, match="tail is lost"):
            use(path)
    assert path.read_bytes().count(b"\n") == lines


def test_log_detects_any_edited_byte(path):
    whole = written(path)
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(Broken):
            verify(path)
        with pytest.raises(Broken):
            EventLog(path)


def test_verify_detects_recomputed_chain(path):
    written(path)
    noted = next(record["hash"] for record, _ in records(path) if record["number"] == 3)
    assert verify(path, (3, noted)).head.number == 4
    for file in path.parent.iterdir():
        file.unlink()
    with EventLog(path) as log:
        log.append(*({"kind": "forged", "i": i} for i in range(4)))
    assert verify(path).head.number == 4
    with pytest.raises(Broken, match="recomputed"):
        verify(path, (3, noted))
    with pytest.raises(Broken, match="tail is lost"):
        verify(path, (9, noted))


@pytest.mark.parametrize("name", ["events.jsonl.head", "events.jsonl"])
def test_log_refuses_missing_files(path, name):
    written(path)
    path.with_name(name).unlink()
    with pytest.raises(Broken):
        EventLog(path)


def test_log_detects_replacement_while_open(path):
    with EventLog(path) as log:
        log.append({"kind": "note"})
        other = path.with_name("other")
        other.write_bytes(path.read_bytes())
        other.replace(path)
        with pytest.raises(Broken, match="replaced"):
            log.append({"kind": "note"})


def test_full_disk_leaves_log_unchanged(path):
    """Runs in a process with a limit on file size."""
    written(path)
    before = path.read_bytes()
    code = (
        "import pathlib, resource, signal, sys\n"
        "from mass_jax.audit.log import EventLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with EventLog(pathlib.Path(sys.argv[1])) as log:\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 500},) * 2)\n"
        "    try:\n"
        "        log.append({'text': 'x' * 5000})\n"
        "    except OSError as error:\n"
        "        print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert path.read_bytes() == before
    assert verify(path).notes == []


def test_invalid_record_leaves_log_unchanged(path):
    before = written(path)
    with EventLog(path) as log, pytest.raises(ValueError, match="JSON"):
        log.append({"kind": "note"}, {"loss": float("inf")})
    assert path.read_bytes() == before


def test_log_is_private_to_its_owner(path):
    written(path)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {
        "events.jsonl": "0o600",
        "events.jsonl.head": "0o600",
    }


def test_verify_names_missing_log(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        verify(tmp_path / "nothing.jsonl")


def test_log_names_unwritable_path(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "events.jsonl", tmp_path):
        with pytest.raises(UserError, match="cannot be written"):
            EventLog(path)


def test_verify_uses_constant_memory(path):
    """Measures memory in a separate process."""
    with EventLog(path) as log:
        for _ in range(20):
            log.append(*({"text": "x" * 100_000} for _ in range(40)))
    assert path.stat().st_size > 80_000_000
    code = (
        "import pathlib, resource, sys\n"
        "from mass_jax.audit.log import verify\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "verify(pathlib.Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000  # KiB


def test_transact_sees_records_of_others(path):
    seen = []
    with EventLog(path, lambda record: seen.append(record["kind"])) as one, EventLog(path) as other:
        one.append({"kind": "a"})
        other.append({"kind": "b"})
        one.transact(lambda: [{"kind": "c", "after": len(seen)}])
    assert seen == ["a", "b", "c"]
    assert json.loads(path.read_text().split("\n")[2])["after"] == 2
    assert os.path.getsize(path) == verify(path).head.size


@pytest.mark.parametrize("head", ["[" * 100_000, '{"number": 1e999, "size": 0, "hash": ""}', "[1]", "9" * 5000, "\xff"])
def test_verify_names_damaged_head(path, head):
    written(path)
    path.with_name("events.jsonl.head").write_bytes(head.encode("latin-1"))
    with pytest.raises(Broken, match="head is damaged"):
        verify(path)


def test_records_keep_their_bytes(path):
    """Old logs verify only if the encoding stays the same."""
    with EventLog(path) as log:
        log.append({"text": "é\u2028\ud800", "loss": -0.0, "big": 10**20, "list": [1e-12, None, True]})
    line, hashed = path.read_bytes(), json.loads(path.read_bytes())["hash"]
    assert line.startswith(b'{"big":100000000000000000000,"hash":"')
    assert b'"list":[1e-12,null,true],"loss":-0.0,"number":1,' in line
    assert b'"text":"\\u00e9\\u2028\\ud800"}' in line
    assert hashed == "4785739e45d15d91711ff1fd498a154198c862630cb24cfec826bf137ae975e4"
