"""Arguments of the models: types, and errors of one line with the fix."""

import importlib
import sys

import pytest

from mass_jax import lazy
from mass_jax.errors import UserError
from mass_jax.harnesses import opening, options


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def test_values_may_be_strings():
    given = {"pretrained": "tiny", "questions": "True", "batch_size": "auto", "seed": "3", "policy": None}
    found = options.parse(given)
    assert (found.poses, found.batch_size, found.seed) == (True, options.BATCH, 3)
    assert not options.parse({"pretrained": "tiny"}).poses
    assert options.parse({"pretrained": "tiny", "adapt": True, "policy": "a", "log": "b"}).poses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either pretrained=MODEL, such as tiny, or workdir=WORKDIR of experiments.train"),
        ({"pretrained": "tiny", "workdir": "{workdir}"}, "give either pretrained=MODEL"),
        ({"pretraned": "tiny"}, "mass_jax has no argument 'pretraned'; did you mean 'pretrained'?"),
        ({"pretrained": "tiny", "adapt": "yes"}, "adapt='yes' is neither true nor false"),
        ({"pretrained": "tiny", "batch_size": 0}, "batch_size=0 is not an integer of at least 1"),
        ({"pretrained": "tiny", "seed": "1.5"}, "seed='1.5' is not an integer of at least 0"),
        ({"pretrained": "tiny", "adapt": True}, "needs policy=FILE and log=FILE; python -m experiments.audit policy"),
        ({"pretrained": "tiny", "adapt": True, "questions": False}, "leave out questions=false"),
        ({"pretrained": "tiny", "log": "events"}, "policy and log are for adapt=true"),
        (
            {"pretrained": "tiny", "questions": True, "dtype": "bfloat16"},
            "dtype and max_length are for questions=false",
        ),
        ({"pretrained": "tiny", "run": "mass"}, "run and train_seed are for workdir=WORKDIR"),
        ({"pretrained": "{workdir}"}, "is a workdir; give workdir="),
        ({"workdir": "/nowhere"}, "workdir=/nowhere holds no run; make one with experiments.train"),
        ({"workdir": "{workdir}", "adapt": True}, "has no trained generator; train it, or give run=pretrained"),
        ({"workdir": "{workdir}", "run": "pretrained", "dtype": "bfloat16"}, "a run has its own"),
    ],
)
def test_errors_name_the_fix(workdir, arguments, message):
    filled = {
        name: value.format(workdir=workdir) if isinstance(value, str) else value for name, value in arguments.items()
    }
    with pytest.raises(UserError) as caught:
        options.parse(filled)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": "/nowhere/model"}, "/nowhere/model"),
        ({"pretrained": "tiny", "dtype": "float8"}, "dtype='float8' is unknown; give float32"),
        ({"workdir": "{workdir}", "run": "pretrained", "adapt": True}, "policy.json"),
    ],
)
def test_files_that_cannot_be_opened_are_user_errors(workdir, arguments, message):
    filled = {
        name: value.format(workdir=workdir) if isinstance(value, str) else value for name, value in arguments.items()
    }
    with pytest.raises(UserError, match=message):
        opening.open_model(options.parse(filled))


@pytest.mark.parametrize(("package", "extra"), [("lm_eval", "lm-eval"), ("inspect_ai", "inspect")])
def test_missing_harness_names_its_extra(monkeypatch, package, extra):
    monkeypatch.delitem(sys.modules, f"mass_jax.harnesses.{package}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(lazy.MissingExtraError, match=rf'not installed; run: pip install "mass_jax\[{extra}\]"'):
        importlib.import_module(f"mass_jax.harnesses.{package}")
