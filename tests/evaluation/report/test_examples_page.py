"""The page of qualitative examples: hostile model output stays text."""

import html
from html.parser import HTMLParser

import pytest

from mass_jax.evaluation.report.examples_page import write_page

HOSTILE = [
    "<script>alert(1)</script>",
    "</code></td></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "{{ config }} {% include '/etc/passwd' %} {# note #}",
    "&lt;b&gt; &#x202e;",
    "\x00\x1b[31m\x7f",
    "\u202etxt\u2066\u200b\ufeff",
    "\ud83d lone \udc00",
]
RECORD = {"problem": "1 + 1", "answer": "2", "subject": "sums"}


class Collector(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)


def page_of(tmp_path, text):
    examples = [{"text": text, "rejected": text}, {"text": text, "score": 0.5, "reward": 0.1, "useful": True}]
    stage = {"examples": examples, "unadapted": text, "adapted": "2"}
    write_page([{"problem": text, "answer": "2", "subject": text, "stages": {text: stage}}], tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = Collector()
    found.feed(source)
    return source, found


@pytest.mark.parametrize("text", HOSTILE)
def test_page_structure_is_independent_of_model_output(tmp_path, text):
    source, found = page_of(tmp_path, text)
    _, plain = page_of(tmp_path, "harmless")
    assert found.tags == plain.tags
    assert found.attributes == plain.attributes
    assert "harmless" not in source
    assert not set(source) & set("\x00\x1b\x7f\u202e\u2066\u200b\ufeff")


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_page_shows_text_literally(tmp_path, text):
    source, found = page_of(tmp_path, text)
    assert found.texts.count(text) >= 4
    assert source.count(html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")) >= 4


def test_page_is_self_contained(tmp_path):
    source, found = page_of(tmp_path, "1 + 2 = 3")
    assert source.startswith('<!doctype html>\n<html lang="en">')
    for part in ("<title>Qualitative examples</title>", 'name="viewport"', "prefers-color-scheme: dark"):
        assert part in source
    assert "http" not in source.replace("http-equiv", "")
    assert not {"src", "href"} & found.attributes
    assert found.tags.count("table") == source.count('<div class="scroll"><table>')


def test_page_keeps_line_breaks(tmp_path):
    source, _ = page_of(tmp_path, "first\nsecond")
    assert "<code>first\nsecond</code>" in source


def test_page_marks_matching_answers(tmp_path):
    _, found = page_of(tmp_path, "3")
    assert found.texts.count("✓ matches") == found.texts.count("✗ differs") == 1
