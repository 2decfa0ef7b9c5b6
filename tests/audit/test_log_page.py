"""The audit page of a log with constructed records."""

import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from mass_jax.audit import log, log_page

HOSTILE = "<script>alert(1)</script>\"' {{ 7 * 7 }} {% raw %} \u202e\x00\n</details>"


def adaptation(text, **changes):
    failed = {"passed": False, "reason": text, "value": 0.5, "limit": 0.25}
    example = {"text": text, "source": "written", "nll": 1.234567, "agreement": None, "used": False}
    example |= {"verdicts": {"calibration": failed, "copy": failed | {"passed": True}}}
    record = {"kind": "adaptation", "time": "2025-01-01T00:00:00Z", "user": text, "question": text, "problem": text}
    record |= {"identity": {"weights": "0" * 64}, "weights_after": "0" * 64, "adapter": "1" * 64, "decision": "adapted"}
    record |= {"examples": [example, example | {"rejected": text}], "losses": [1.0, 0.5, 0.25], "factor": 1.0}
    record |= {"norms": {"all": 0.01}, "regression": {"accuracy_before": 1.0}, "reason": text, "before": text}
    record |= {"after": "2", "answer": "2", "tokens": {"answer": 12_345}, "flops": 2e9, "seconds": {"adapt": 0.5}}
    return record | changes


def page_of(tmp_path, *records):
    path = tmp_path / f"log{len(list(tmp_path.iterdir()))}.jsonl"
    with log.EventLog(path) as opened:
        opened.append({"kind": "run"}, *records)
    count = log_page.write_page(path, tmp_path / "page.html")
    return count, (tmp_path / "page.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.found = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, *(name for name, _ in attrs)))


def test_page_shows_every_adaptation(tmp_path):
    count, text = page_of(tmp_path, adaptation("4 kabo 3"), adaptation("5", decision="refused", losses=None))
    assert count == text.count("<summary>") == 2
    assert text.count("<polyline") == 1
    assert text.count("4 kabo 3") >= 5
    for part in ("3 records", ">12345</td>", ">1.23</td>", "(0.5 / 0.25)", ">pass</td>"):
        assert part in text
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600


def test_page_structure_is_independent_of_logged_text(tmp_path):
    _, plain = page_of(tmp_path, adaptation("harmless"))
    _, hostile = page_of(tmp_path, adaptation(HOSTILE))
    assert Tags(hostile).found == Tags(plain).found
    assert "<script" not in hostile
    assert "{{ 7 * 7 }} {% raw %} \\u202e\\u0000\\u000a" in hostile


def test_page_shows_keyed_hashes_of_hidden_texts(tmp_path):
    kept = {"hmac_sha256": "abcdef0123456789" + "f" * 48}
    _, text = page_of(tmp_path, adaptation(kept))
    assert "hash abcdef0123456789</code>" in text
    assert "f" * 48 not in text


def test_page_shows_an_event_without_examples(tmp_path):
    empty = {"examples": [], "losses": None, "norms": None, "regression": None, "adapter": None, "before": None}
    _, text = page_of(tmp_path, adaptation("4 kabo 3", reason=None, **empty))
    assert "adapter none" in text
    assert "<bdi>none</bdi>" in text
    assert ">None<" not in text


def test_page_lists_repairs(tmp_path):
    _, text = page_of(tmp_path, {"kind": "fault", "reason": "<b>"}, {"kind": "repair"})
    assert "<li>record 2 is a fault: &lt;b&gt;</li>" in text
    assert "<li>record 3 is a repair: an incomplete last line was removed</li>" in text


@pytest.mark.parametrize("losses", [None, [], [1.0], [1.0, "nan"], [0.0, 0.0], [-1.0, 2.0]])
def test_loss_curve_needs_two_numbers(losses):
    points = log_page.loss_curve(losses)
    assert len(points) in (0, 2)
    assert (len(points) == 2) == (losses in ([0.0, 0.0], [-1.0, 2.0]))


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_page_in_a_browser_has_only_its_events(tmp_path):
    page_of(tmp_path, *[adaptation(HOSTILE)] * 3)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [str(CHROMIUM), *flags, (tmp_path / "page.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True).stdout
    assert dom.count("<summary>") == dom.count("<polyline") == 3
    assert "<script" not in dom
