"""Tests of experiments.validate: settings of auto, trained generators, headers and one-line errors."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import types

import jax
import numpy as np
import pytest

from experiments import validate
from mass_jax import metagrad as mg
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.method import meta_step
from mass_jax.runtime import Checkpoints
from mass_jax.serving import source
from mass_jax.training.components import assemble
from mass_jax.training.eps_root import auto_eps_root
from mass_jax.training.inner_setting import parse_setting
from mass_jax.training.learners import mass_learner
from tests.commands import as_process, in_process, locked_elsewhere

SGD = Config(seeds=(4, 9), num_train_problems=30, inner_eps_root="1e-5")


@pytest.fixture(scope="module")
def components():
    with contextlib.closing(assemble(SGD)) as parts:
        yield parts


@pytest.fixture(scope="module")
def trained(components, tmp_path_factory):
    """A workdir whose generator of seed 9 has other weights; seed 4 is not trained."""
    return saved(components, tmp_path_factory.mktemp("trained"))


def saved(components, workdir):
    """Saves settings and changed weights of seed 9 as a training run does."""
    config = components.config
    (workdir / "config.json").write_text(config.to_json())
    policy = components.fresh_weights(jax.random.key(0)).policy
    learner = mass_learner(config, components.rollouts.loop, components.scorer, "verifier")
    state = meta_step.init_state(jax.random.key(0), learner, policy)
    with Checkpoints(workdir / "seed9" / "mass" / "checkpoints") as checkpoints:
        names = {"policy", "inner"} & set(state._fields)
        changed = {name: jax.tree.map(lambda leaf: np.asarray(leaf) + 1, getattr(state, name)) for name in names}
        checkpoints.save(3, jax.device_put(state._replace(**changed)))
    return workdir


class Flags(types.SimpleNamespace):
    """Values of flags; --inner_optimizer is present if it has one."""

    def __getitem__(self, name):
        return types.SimpleNamespace(present=hasattr(self, name))


@pytest.fixture
def flags(monkeypatch):
    """Sets the flags of the command, which tests of other commands define differently in this process."""

    def given(**values):
        defaults = {
            "trained": None,
            "local_trained": None,
            "run": None,
            "half_right": False,
            "train_seed": None,
            "seed": 0,
            "score": 0.5,
            "measures": [],
        }
        defaults["task"] = "testbed"
        monkeypatch.setattr(validate, "FLAGS", Flags(**defaults | values))

    return given


def loaded(config=SGD):
    with contextlib.ExitStack() as held:
        return validate.load(held, config, None)


def auto_of(model, config):
    with contextlib.ExitStack() as held:
        return validate.auto_of(held, model, config)


def untrained(components, config=SGD):
    """Returns the pretrained model with other settings."""
    return source.LoadedModel(
        config, pathlib.Path(), components.chosen, components.rollouts, components.pretrained(), "pretrained"
    )


def test_trained_generator_is_that_of_its_seed(trained, flags):
    flags(trained=str(trained), train_seed=9)
    model = loaded()
    assert model.label.endswith("mass, seed 9, step 3")
    assert not validate.is_pretrained(model)


@pytest.mark.parametrize(("seed", "named"), [(None, 4), (0, 0)])
def test_untrained_seed_is_refused(trained, flags, seed, named):
    flags(trained=str(trained), train_seed=seed, seed=9)
    with pytest.raises(
        ValueError, match=f"no trained generator of seed {named}; .*--train_seed.*--run=pretrained"
    ) as e:
        loaded()
    assert "\n" not in str(e.value)


def test_pretrained_generator_is_measured_on_request(trained, flags):
    flags(trained=str(trained), run="pretrained")
    assert validate.is_pretrained(loaded())


@pytest.mark.parametrize(
    ("optimizer", "learned", "rate", "momentum"),
    [("sgd", "inner_lr", 0.2 * math.e, ""), ("sgd(momentum=0.5)", "momentum", 0.2, "momentum=0.73105")],
)
def test_learned_values_of_trained_run_are_measured(optimizer, learned, rate, momentum, flags, tmp_path):
    config = dataclasses.replace(SGD, inner_optimizer=optimizer, learn=learned)
    with contextlib.closing(assemble(config)) as components:
        flags(trained=str(saved(components, tmp_path)), train_seed=9)
    (measured,) = validate.to_measure([], config, loaded(config), auto=None)
    assert measured.rate == pytest.approx(rate, rel=1e-6)  # training added 1 to log(0.2), or to the logit of 0.5
    assert momentum in measured.optimizer
    (given,) = validate.to_measure([f"{optimizer}:0.3"], config, loaded(config), auto=None)
    assert given.rate == 0.3


def test_auto_is_that_of_training(trained, components, flags):
    """Neither the weights after training nor --seed change it."""
    problems = components.problems(4).train
    expected = auto_eps_root(components.rollouts, components.pretrained(), problems, SGD.num_test_examples)
    flags(trained=str(trained), train_seed=9, seed=7)
    model = loaded()
    assert auto_of(model, SGD) == auto_of(untrained(components), SGD) == expected != 1e-5
    other = auto_eps_root(model.rollouts, model.weights, problems, SGD.num_test_examples)
    assert other != expected, "the trained weights would give the same value"


def test_values_of_settings_resolve_auto_and_missing_values(components, flags):
    flags()
    model = untrained(components)
    roots = [parse_setting(text, SGD, lambda: auto_of(model, SGD)).eps_root for text in ("adam:1", "adam:1:auto")]
    assert roots == [1e-5, auto_of(model, SGD)]
    adam = Config(inner_optimizer="radam", inner_eps_root="auto")
    measured = untrained(components, adam)  # its loop has the value that was measured when it was loaded
    assert auto_of(measured, adam) == components.rollouts.loop.eps_root


def test_auto_is_the_stored_value_of_an_adam_run(components, flags):
    """A loaded training run names the stored value in its settings and has it in its inner loop."""
    flags()
    asked = Config(inner_optimizer="amsgrad", inner_eps_root="auto")
    model = untrained(components, dataclasses.replace(asked, inner_eps_root="0.25"))
    loop = dataclasses.replace(model.rollouts.loop, eps_root=0.25)
    stored = model._replace(rollouts=dataclasses.replace(model.rollouts, loop=loop))
    assert auto_of(stored, asked) == 0.25


def test_train_seed_needs_training_run(flags):
    flags(train_seed=2)
    with pytest.raises(ValueError, match="--train_seed=2 needs --trained"):
        validate.read_config(contextlib.ExitStack())


@pytest.mark.parametrize("text", ["[]", '{"architectures": ["Llama"]}', "{"])
def test_trained_needs_training_run(flags, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    flags(trained=str(tmp_path))
    with pytest.raises(ValueError, match="is not a workdir of experiments"):
        validate.read_config(contextlib.ExitStack())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.5}, "temperature=1.0, now it is 0.5"),
        ({"lora_rank": 2}, "lora_rank=4, now it is 2"),
        ({"lora_targets": ("q_proj",)}, r"lora_targets=\['q_proj', .*, now it is \['q_proj'\]"),
        ({"num_examples": 5}, "examples=12, now it is 5"),
    ],
)
def test_reports_of_other_settings_are_refused(components, flags, tmp_path, changes, message):
    flags()
    path = tmp_path / "validate.json"
    path.write_text(json.dumps(validate.header_of(untrained(components, Config()), 4) | {"settings": {}}))
    with pytest.raises(UserError, match=f"measured with {message}; give another --workdir"):
        validate.read_reports(path, validate.header_of(untrained(components, Config(**changes)), 4))


def test_reports_are_reused_for_other_inner_optimizers(components, flags, tmp_path):
    flags(seed=3)
    report = mg.SignalReport(4, 8, 0, {}, {})
    header = validate.header_of(untrained(components, Config()), 4)
    path = tmp_path / "validate.json"
    path.write_text(json.dumps(header | {"settings": {"sgd": json.loads(report.to_json())}}))
    changed = Config(inner_optimizer="adam", inner_lr=0.5, inner_eps_root="1", inner_steps=3)
    assert validate.read_reports(path, validate.header_of(untrained(components, changed), 4)) == {"sgd": report}


SMALL = "--problems=2 --num_examples=2 --measures= --num_train_problems=20 --settings=sgd:0.1::1".split()
SMALL.append("--lora_targets=q_proj")


def run(workdir, *given):
    return in_process("validate", *SMALL, f"--workdir={workdir}", *given)


def test_validate_resumes_its_own_measurement_only(tmp_path):
    done = as_process("validate", *SMALL, f"--workdir={tmp_path / 'a'}", env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| sgd 0.1, K=1 |" in done.stdout
    before = (tmp_path / "a" / "validate.json").read_text()
    refused = run(tmp_path / "a", "--max_example_tokens=9")
    assert refused.returncode == 2
    assert "was measured with max_example_tokens=" in refused.stderr.splitlines()[-1]
    assert (tmp_path / "a" / "validate.json").read_text() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--settings=sgd:x"], "error: --settings: 'sgd:x' is not OPTIMIZER:RATE"),
        (["--measures=add_two"], "error: --measures='add_two' is unknown; did you mean 'add_one'"),
        (["--trained=nowhere"], "error: --trained=nowhere is not a workdir of experiments.train"),
    ],
    ids=["settings", "measures", "trained"],
)
def test_validate_reports_invalid_flags(given, message, tmp_path):
    done = run(tmp_path / "a", *given)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(message)
    assert not list(tmp_path.iterdir())


def test_validate_refuses_workdir_in_use(tmp_path):
    with locked_elsewhere(tmp_path):
        done = run(tmp_path)
    assert done.returncode == 2
    assert "is in use by process" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "validate.json").exists()
