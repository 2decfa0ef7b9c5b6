"""Evaluation records after kills: complete batches are kept, incomplete ones are evaluated again."""

import pytest

from mass_jax.evaluation.records import RecordLog, read_records
from mass_jax.runtime import jsonl

BATCHES = [2, 2, 1]
RECORDS = [{"id": f"p{i}", "text": "a\nb\u2028"} for i in range(5)]


def write(path, batches):
    log = RecordLog(path, BATCHES)
    start = sum(BATCHES[: log.done])
    for size in BATCHES[log.done : batches]:
        log.append(RECORDS[start : start + size])
        start += size


def test_record_log_round_trips(tmp_path):
    path = tmp_path / "evaluation" / "base.jsonl"
    assert read_records(path) == []
    write(path, 3)
    assert read_records(path) == RECORDS
    assert RecordLog(path, BATCHES).done == 3


@pytest.mark.parametrize("cut", range(0, 170, 7))
def test_record_log_repairs_truncated_file(tmp_path, cut):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    write(whole, 3)
    path.write_bytes(whole.read_bytes()[:cut])
    log = RecordLog(path, BATCHES)
    assert read_records(path) == RECORDS[: sum(BATCHES[: log.done])]
    write(path, 3)
    assert path.read_bytes() == whole.read_bytes()


def test_record_log_keeps_records_before_damage(tmp_path, caplog):
    path = tmp_path / "base.jsonl"
    write(path, 3)
    lines = path.read_text().split("\n")
    lines[3] = lines[3][:-9] + "\x00\x00"
    path.write_text("\n".join(lines))
    assert read_records(path) == RECORDS[:3] + RECORDS[4:]
    assert f"{path}:4: NUL bytes" in caplog.text
    assert RecordLog(path, BATCHES).done == 1
    assert f"{path}:4: NUL bytes, as a crash leaves them; records from there on" in caplog.text
    assert read_records(path) == RECORDS[:2]


def test_record_log_drops_repeated_records(tmp_path, caplog):
    path = tmp_path / "base.jsonl"
    keyed = [record | {"seed": 0, "column": "test", "seconds": 0.1} for record in RECORDS]
    later = [record | {"seconds": 0.2} for record in keyed]
    jsonl.rewrite(path, [*keyed[:2], *later[:2], *keyed[2:4], *later[2:], keyed[4]])
    assert read_records(path) == [*keyed[:4], later[4]]
    assert "5 records are repeated" in caplog.text
    assert RecordLog(path, BATCHES).done == 3
    assert len(path.read_text().splitlines()) == 5
