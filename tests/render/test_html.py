"""HTML rendering: escaping, spelled-out characters, strict names."""

import jinja2
import pytest

from mass_jax.render.html import environment, visible


def rendered(source, keep="", **values):
    return environment("mass_jax.evaluation.report", keep).from_string(source).render(**values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\" onload='x'", "&#34; onload=&#39;x&#39;"),
        ("{{ 7 * 7 }}{% raw %}", "{{ 7 * 7 }}{% raw %}"),
        ("&lt;", "&amp;lt;"),
        ("a\x00b\x1b[2J", "a\\u0000b\\u001b[2J"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("\u2066\u200f\u00a0\u2028", "\\u2066\\u200f\\u00a0\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("x² ≤ π 数 😀", "x² ≤ π 数 😀"),
    ],
)
def test_environment_escapes_hostile_text(text, expected):
    assert rendered("{{ text }}", text=text) == expected
    assert rendered('<a title="{{ text }}">', text=text) == f'<a title="{expected}">'
    assert rendered("{% macro m(t) %}<b>{{ t }}</b>{% endmacro %}{{ m(text) }}", text=text) == f"<b>{expected}</b>"


def test_environment_keeps_named_characters_only():
    assert rendered("{{ text }}", keep="\n", text="a\nb\r") == "a\nb\\u000d"


def test_environment_rejects_undefined_names():
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        rendered("{{ missing }}")


def test_visible_text_encodes_to_utf8():
    visible("".join(map(chr, [*range(0x11000), *range(0xE0000, 0xE0200), 0x10FFFF]))).encode("utf-8")
