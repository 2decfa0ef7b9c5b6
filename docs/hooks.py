"""mkdocs hooks: renders formulas to MathML and fills in the generated tables.

Formulas become MathML at build time, so that the site needs no script from another host. A page asks for a generated
table by a comment such as `<!-- generate: flags -->`.
"""

import dataclasses
import html
import re

import latex2mathml.converter

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_GENERATE = re.compile(r"<!-- generate: (\w+) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replaces each marker by its generated table."""
    return _GENERATE.sub(lambda match: TABLES[match[1]](), markdown)


def on_page_content(content: str, **_: object) -> str:
    """Renders the formulas of a page."""
    return _FORMULA.sub(_to_mathml, content)


def _to_mathml(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    return latex2mathml.converter.convert(html.unescape(match[3].strip()), display=display)


def flags_table() -> str:
    """One table per group of settings, from the fields of `Config`."""
    from mass_jax.config import Config

    lines = ["| flag | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(Config):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        choices = field.metadata["choices"]
        meaning = field.metadata["help"] + (f" Choices: {', '.join(choices)}." if choices else "")
        lines.append(f"| `--{field.name}` | `{default}` | {meaning} |".replace("\n", " "))
    return "\n".join(lines)


TABLES = {"flags": flags_table}
