"""Grammar of optimizers: canonical text, positions in errors, and the user's own code."""

import contextlib
import random
import sys
import textwrap

import pytest

from mass_jax import optax_functions, own_function
from mass_jax.errors import UserError
from mass_jax.expression import parse
from mass_jax.own_function import located, own_code


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("sgd", "sgd"),
        (" sgd ( ) ", "sgd"),
        ("adamw(b1=.8,eps_root=auto)", "adamw(b1=0.8, eps_root=auto)"),
        ("clip(1.0)|adam( 1e-3 , nesterov=True)", "clip(1.0) | adam(0.001, nesterov=True)"),
        ("sgd(cosine_decay_schedule(0.2, 4), momentum=None,)", "sgd(cosine_decay_schedule(0.2, 4), momentum=None)"),
        (f"clip({'9' * 400})", f"clip({'9' * 400})"),
        ("chain(clip(1) | sgd, -2)", "chain(clip(1) | sgd, -2)"),
        ("my_package.code:make(+3)", "my_package.code:make(3)"),
        ("/a-b/c d.py:make", None),
        ("/a-b/c_d.py:make", "/a-b/c_d.py:make"),
    ],
)
def test_canonical_text_parses_to_itself(text, canonical):
    if canonical is None:
        with pytest.raises(UserError, match="character 1: expected the name of an optimizer, found '/a-b/c'"):
            parse(text)
    else:
        assert str(parse(text)) == canonical
        assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: expected the name of an optimizer, found the end"),
        ("adam(", "character 6: expected a value, found the end"),
        ("adam(b1=)", "character 9: expected a value, found ')'"),
        ("adam)", "character 5: expected '|' or the end, found ')'"),
        ("adam | ", "character 8: expected the name of an optimizer, found the end"),
        ("adam(b1=1, 2)", "character 12: a positional argument follows b1=; name it"),
        ("adam(b1=1, b1=2)", "character 12: argument 'b1' is repeated"),
        ("adam(__import__('os').system('x'))", "character 17: expected a value, found \"'os'\""),
        ("adam(b1=0.1; import os)", "character 9: expected a value, found '0.1;'"),
        ("adam(b1=lambda: 1)", "character 9: expected a value, found 'lambda:'"),
        ("adam(1_0)", "character 6: expected a value, found '1_0'"),
        ("adam(nan)", "character 6: 'nan' is unknown; "),
        ("adam(1e999)", "character 6: expected a value, found '1e999'"),
        ("f(" * 40 + ")" * 40, "character 35: calls are nested more than 16 deep"),
        ("a" * 2001, "the expression has 2001 characters; shorten it to 2000"),
        ("adam(b3=0.9)", "character 6: adam has no argument 'b3'; did you mean 'b2' or 'b1'?"),
        ("sgd(1, 2, 3, 4, 5)", "character 17: sgd takes 4 arguments; remove this one"),
        ("sgd(0.1, learning_rate=1)", "character 10: argument 'learning_rate' of sgd is repeated"),
        ("clip(1.0) | adm", "character 13: 'adm' is unknown; did you mean 'adam', "),
        ("optax.adam", "character 1: 'optax.adam' is unknown; did you mean "),
        ("os.system", "character 1: 'os.system' is unknown; "),
    ],
)
def test_invalid_expression_names_position(text, message):
    with pytest.raises(UserError) as caught:
        optax_functions.check(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_random_text_parses_or_raises_user_error():
    draw = random.Random(0)
    parts = ["adam", "(", ")", "=", ",", "|", " ", "1.5", "-", "auto", "None", "a.b", "x.py:f", "\n", "é", "'"]
    parsed = 0
    for _ in range(2000):
        text = "".join(draw.choices(parts, k=draw.randint(1, 12)))
        with contextlib.suppress(UserError):
            assert parse(str(parse(text))) == parse(text)
            parsed += 1
    assert parsed > 50


@pytest.mark.parametrize(
    ("text", "rate", "eps_root"),
    [
        ("sgd", True, False),
        ("sgd(0.1)", False, False),
        ("adam(0.1, eps_root=1e-6)", False, False),
        ("adam(0.1, eps_root=auto)", False, True),
        ("clip(1.0) | scale_by_adam | scale(-0.1)", False, True),
        ("momentum", True, False),
        ("custom", False, False),
        ("sgd(cosine_decay_schedule(0.2, 4))", False, False),
    ],
)
def test_depends_on_flags_only_for_missing_arguments(text, rate, eps_root):
    found = (optax_functions.depends_on(text, name) for name in ("learning_rate", "eps_root"))
    assert tuple(found) == (rate, eps_root)


def test_common_names_are_those_of_optax():
    assert set(optax_functions.COMMON) - set(optax_functions.ALIASES) <= set(optax_functions.transformations())


def test_own_code_is_found_and_located(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("def make(learning_rate): return learning_rate")
    monkeypatch.chdir(tmp_path)
    assert own_code("clip(1.0) | own.py:make") == ["own.py:make"]
    assert located("clip( 1.0 )|own.py:make") == f"clip(1.0) | {tmp_path.resolve()}/own.py:make"
    assert located("clip( 1.0 )|absent.py:make") == "clip(1.0) | absent.py:make"
    assert located("clip( 1.0 )|sgd") == "clip( 1.0 )|sgd"
    assert optax_functions.depends_on("own.py:make", "learning_rate")
    assert own_function.load("own.py:make")(3) == 3


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (None, "make", "absent.py is not a file; give the path of a Python file"),
        ("1 / 0", "make", r"ZeroDivisionError: division by zero \(failing.py:1\)"),
        ("import sys\nx = (", "make", "SyntaxError: '\\(' was never closed"),
        ("def other(): ...", "make", "has no 'make'; it has other"),
    ],
)
def test_own_code_errors_name_file_and_line(code, name, message, tmp_path):
    file = tmp_path / ("absent.py" if code is None else "failing.py")
    if code is not None:
        file.write_text(textwrap.dedent(code))
    modules = set(sys.modules)
    with pytest.raises(UserError, match=message) as caught:
        own_function.load(f"{file}:{name}")
    assert "\n" not in str(caught.value)
    assert code == "def other(): ..." or set(sys.modules) == modules
