"""Loading models from workdirs with real checkpoints."""

import dataclasses
import logging
import pathlib
import shutil

import jax
import numpy as np
import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.method import adapt
from mass_jax.serving import loading, source
from tests.written_runs import write_run

ENGINE = "mass_jax.sampling:Engine"
OWN_TASK = """
from mass_jax.tasks.base import Problem, Problems
from mass_jax.tasks.registry import Chosen
from mass_jax.tasks.testbed import Domain, OperatorTask

def make(config, directory, tokenizer):
    problem = Problem("p", "1 sum 1", "0 2", "0 2")
    task = OperatorTask(Domain.load(directory / "domain.json"))
    return Chosen(task, lambda seed: Problems([problem], {"test": [problem]}, None))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir with checkpoints of steps 1 and 2, whose weights all equal the step."""
    return write_run(tmp_path_factory.mktemp("trained"), Config())


@pytest.fixture
def workdir(trained, tmp_path):
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


def flip_bits(checkpoint):
    path = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def loaded_step(workdir):
    found = source.load_model(str(workdir))
    found.chosen.close()
    assert {float(np.unique(leaf).item()) for leaf in jax.tree.leaves(found.weights.policy)} == {
        float(found.label.rpartition(" ")[2])
    }
    return int(found.label.rpartition(" ")[2])


def test_load_model_takes_newest_checkpoint(workdir, caplog):
    assert loaded_step(workdir) == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_load_model_skips_corrupt_checkpoint(workdir, caplog):
    checkpoints = workdir / "seed0" / "mass" / "checkpoints"
    flip_bits(checkpoints / "2")
    assert loaded_step(workdir) == 1
    assert f"checkpoint {checkpoints / '2'} cannot be used" in caplog.text
    assert (checkpoints / "2").exists()  # nothing is removed
    flip_bits(checkpoints / "1")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read .*has changed since it was saved"):
        source.load_model(str(workdir))


def test_load_model_replaces_attention_that_a_cpu_cannot_run(workdir, caplog):
    path = workdir / "config.json"
    path.write_text(dataclasses.replace(Config.from_json(path.read_text()), attention="kernel").to_json())
    with caplog.at_level(logging.INFO, "absl"):
        loaded = source.load_model(str(workdir))
    loaded.chosen.close()
    assert loaded.config.attention == "auto"
    assert "the run was trained with --attention=kernel" in caplog.text


@pytest.mark.parametrize("text", ["[]", '"tiny"', "null", "[" * 100_000, '{"steps": "5"}', "\xff"])
def test_load_model_refuses_damaged_settings(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=r"config\.json is not the settings of a run") as caught:
        source.load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_load_model_runs_no_code_that_settings_name(tmp_path):
    code = tmp_path / "code.py"
    code.write_text("raise SystemExit('the code ran')\n")
    (tmp_path / "config.json").write_text(Config(sampler=f"{code}:Make").to_json())
    for options, name in (({}, "native"), ({"sampler": ENGINE}, ENGINE)):
        found = source.load_model(str(tmp_path), **options)
        found.chosen.close()
        assert found.config.sampler == name
        assert found.rollouts.sampler.is_native == (name == "native")


def test_load_model_contacts_no_server_that_settings_name(tmp_path):
    stored = Config(sampler="vllm", sampler_url="http://192.0.2.1/v1")
    (tmp_path / "config.json").write_text(stored.to_json())
    for given, url in ((None, Config().sampler_url), ("http://host/v1", "http://host/v1")):
        found = source.load_model(str(tmp_path), sampler="vllm", sampler_url=given)
        found.chosen.close()
        assert found.rollouts.sampler.sampler.server.url == url


def test_load_model_limits_the_server_as_given_or_as_settings_do(tmp_path):
    (tmp_path / "config.json").write_text(Config(sampler_timeout=5.0, sampler_tolerance=0.5).to_json())
    for model, given, limits in (
        (str(tmp_path), {}, (5.0, 0.5)),
        (str(tmp_path), {"sampler_timeout": 7.0, "sampler_tolerance": 0.0}, (7.0, 0.0)),
        ("tiny", {}, (Config().sampler_timeout, Config().sampler_tolerance)),
        ("tiny", {"sampler_tolerance": 0.3}, (Config().sampler_timeout, 0.3)),
    ):
        found = source.load_model(model, sampler="vllm", **given)
        found.chosen.close()
        server = found.rollouts.sampler.sampler.server
        assert (server.timeout, server.tolerance) == limits
    with pytest.raises(UserError, match="--sampler_timeout=nan is below its minimum"):
        source.load_model("tiny", sampler="vllm", sampler_timeout=float("nan"))


def test_load_model_opens_own_task_only_if_named_again(tmp_path):
    code = tmp_path / "code.py"
    code.write_text("raise SystemExit('the code ran')\n")
    (tmp_path / "config.json").write_text(Config(task=f"{code}:make").to_json())
    with pytest.raises(UserError, match=rf"settings in {tmp_path} name code to run; pass --task={code}:make if you"):
        source.load_model(str(tmp_path))
    with pytest.raises(UserError, match=rf"--task=testbed: the run in {tmp_path} has --task={code}:make"):
        source.load_model(str(tmp_path), own_task="testbed")
    with pytest.raises(SystemExit, match="the code ran"):
        loading.load("tiny", adapt=False, own_task=f"{code}:make")
    code.write_text(OWN_TASK)
    for model in (str(tmp_path), "tiny"):
        found = source.load_model(model, own_task=f"{code}:make")
        found.chosen.close()
        assert found.config.task == f"{code}:make"
        assert found.chosen.problems(0).train[0].answer == "0 2"


def test_load_model_uses_learned_hyperparameters(tmp_path):
    learned = {"inner_lr": np.float32(np.log(0.07))}
    write_run(tmp_path, Config(learn="inner_lr"), inner=learned)
    found = source.load_model(str(tmp_path))
    found.chosen.close()
    assert found.config.inner_lr == pytest.approx(0.07)
    assert (found.config.learn, found.weights.inner, found.rollouts.loop.learned) == ("", None, None)
    optimizer = adapt.fixed_inner_optimizer("sgd", found.config.inner_lr, found.rollouts.loop.eps_root)
    assert found.rollouts.loop.optimizer is optimizer
