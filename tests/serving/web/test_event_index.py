"""The index of an event log that grows while it is read."""

import pytest

from mass_jax.audit import log
from mass_jax.audit.chain import Broken
from mass_jax.serving.web.event_index import EventIndex, event_id


def event(request, problem="4 kabo 3"):
    return {"kind": "adaptation", "request": f"{request:064x}", "problem": problem}


@pytest.fixture
def opened(tmp_path):
    with log.EventLog(tmp_path / "events.jsonl") as opened:
        yield opened


def test_index_finds_events_by_secret_id(opened):
    run, first = opened.append({"kind": "run"}, event(1))
    index = EventIndex(opened.path)
    (second,) = opened.append(event(2))
    assert index.id_of(second["number"]) == event_id(second)
    assert [index.find(event_id(record)) for record in (run, first, second)] == [None, first, second]
    wrong = [f"{first['number']}:{second['hash']}", f"9:{first['hash']}", str(first["number"]), first["hash"], "", ":"]
    wrong += [f"-1:{first['hash']}", f"0:{first['hash']}", f"²:{first['hash']}", f"{first['number']}:é", "9" * 99 + ":"]
    assert [index.find(name) for name in wrong] == [None] * len(wrong)
    with pytest.raises(KeyError):
        index.id_of(4)
    index.close()


def test_index_finds_latest_event_of_request(opened):
    index = EventIndex(opened.path, most_requests=2)
    opened.append(event(1), event(2), event(1))
    assert index.recorded(f"{1:064x}")["number"] == 3
    opened.append(event(3))
    assert [index.recorded(f"{i:064x}") is None for i in (1, 2, 3)] == [False, True, False]  # 2 is the oldest
    opened.append(event(4, {"hmac_sha256": "0"}))
    assert index.recorded(f"{4:064x}") is None
    index.close()


def test_index_waits_for_end_of_record(opened):
    index = EventIndex(opened.path)
    opened.append(event(1))
    whole = opened.path.read_bytes()
    opened.path.write_bytes(whole[:-5])
    assert index.recorded(f"{1:064x}") is None
    opened.path.write_bytes(whole)
    assert index.recorded(f"{1:064x}")["number"] == 1
    opened.path.write_bytes(whole + whole)
    with pytest.raises(Broken):
        index.recorded(f"{2:064x}")
    index.close()
