"""A spell checker for phrases that this project avoids: they read like a translation."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PHRASES = re.compile(
    r"nats a token|tokens? a (?:question|row|step)|\bmend(?:s|ed|ing)?\b|\bLetters:|of everything drawn|anyone's"
    r"|what it deserves|that (?:is|are) not there|\bhangs? on (?:the|no|its)|goes on where|go(?:es)? on from"
    r"|what stands|what a .{3,20} (?:leaves|stands)|is told by|takes? in and gives? out|\bof ones own"
    r"|\bis no (?!longer\b|more\b|need\b|such\b)[a-z]+|\bpractis(?:e|es|ed|ing)\b|\bas it is\b",
    re.IGNORECASE,
)
SKIPPED = ("docs/results/", "mass_jax/data/", "tests/test_language.py")
FILES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "mass_jax/**/*.py",
        "experiments/**/*.py",
        "tests/**/*.py",
        "third_party/**/*",
    )
    for path in ROOT.glob(pattern)
    if path.suffix in (".md", ".py") and not path.relative_to(ROOT).as_posix().startswith(SKIPPED)
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_uses_plain_phrases(path):
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert [f"{number}: {line.strip()}" for number, line in lines if PHRASES.search(line)] == []
