"""Studies started from Python check and lock their workdirs as the commands do."""

import json
import logging as std_logging
import pathlib
import re

import optax
import pytest
from absl import logging

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.evaluation import study
from mass_jax.evaluation.records import read_records
from mass_jax.runtime import Stop, lock_workdir
from tests.small_models import RUN, components

BASE = {"methods": ("base",)}


def run(workdir, start=study.run_study, **changes):
    made = components(**(BASE | changes))
    start(made, workdir, Stop())
    return made.config


def settings_in(workdir):
    return Config.from_json((workdir / "config.json").read_text())


def test_run_study_writes_and_guards_settings(tmp_path):
    workdir = tmp_path / "run"
    config = run(workdir)
    assert settings_in(workdir) == config
    with pytest.raises(UserError, match=r"started with lora_rank=4, now it is 8; choose another --workdir"):
        run(workdir, lora_rank=8)
    run(workdir, study.run_evaluation, methods=("base", "few_shot"))
    assert settings_in(workdir) == config
    assert len(read_records(study.records_path(workdir / "seed0", "few_shot"))) == 4
    with pytest.raises(UserError, match="started with lora_rank=4, now it is 2"):
        study.write_report(Config(**RUN, **BASE, lora_rank=2), workdir)


@pytest.fixture
def absl_logging():
    """Restores the log, which `study.run` sends to the console."""
    root, handler, verbosity = std_logging.getLogger(), logging.get_absl_handler(), logging.get_verbosity()
    attached, filters = handler in root.handlers, list(handler.filters)
    yield
    logging.set_verbosity(verbosity)
    handler.filters[:] = filters
    if not attached:
        root.removeHandler(handler)


@pytest.mark.usefixtures("absl_logging")
def test_run_takes_optimizer_from_python(tmp_path):
    """Runs the lines of the documentation, with smaller settings."""
    page = (pathlib.Path(__file__).parents[2] / "docs" / "guides" / "inner_optimizer.md").read_text(encoding="utf-8")
    [lines] = [block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "study.run" in block]
    small = f"Config(**{RUN | BASE}, inner_optimizer='adam', inner_eps_root='auto')"  # measures nothing
    lines = lines.replace("Config()", small).replace('"runs/own"', repr(str(tmp_path / "run")))
    exec(lines, {"make": optax.sgd})
    assert settings_in(tmp_path / "run").inner_optimizer == "custom"
    assert "base" in json.loads((tmp_path / "run" / "report" / "table1.json").read_text())["methods"]
    assert logging.get_verbosity() == logging.INFO
    with pytest.raises(UserError, match="started with inner_optimizer='custom', now it is 'sgd'"):
        run(tmp_path / "run")


def test_run_study_claims_workdir_after_checks(tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(UserError, match="raise --max_prompt_tokens to 6 or more"):
        run(workdir, max_prompt_tokens=5)
    assert not workdir.exists()
    workdir.mkdir()
    killed_early = Config(**RUN, **BASE, inner_lr=7.0)  # before any result
    (workdir / "config.json").write_text(killed_early.to_json())
    study.check_lengths(components(**BASE, max_prompt_tokens=6), ["base"], seed=0)
    config = run(workdir)
    assert settings_in(workdir) == config


@pytest.mark.parametrize("start", [study.run_study, study.run_evaluation])
def test_study_rejects_workdir_without_settings(start, tmp_path):
    (tmp_path / "seed0" / "evaluation").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds 'seed0' but no config\.json, so its settings are unknown"):
        run(tmp_path, start)


@pytest.mark.parametrize("start", [study.run_study, study.run_evaluation])
def test_study_rejects_workdir_in_use(start, tmp_path):
    holder = pytest.importorskip("filelock").SoftFileLease(tmp_path / ".lock", lease_duration=60.0)
    with holder, pytest.raises(UserError, match="is in use by process"):
        run(tmp_path, start)
    with lock_workdir(tmp_path):  # free again
        assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("rows", "lengths", "message"),
    [
        (["base"], {"max_prompt_tokens": 3}, "raise --max_prompt_tokens to"),
        (["tt_ss"], {"max_generator_prompt_tokens": 2}, "raise --max_generator_prompt_tokens to"),
        (["mass_gold"], {"max_prompt_tokens": 6, "max_answer_tokens": 1}, "raise --max_answer_tokens"),
        (["mass_shuffled"], {"max_generator_prompt_tokens": 2}, "raise --max_generator_prompt_tokens to"),
        (["solver_grpo"], {"max_prompt_tokens": 3}, "raise --max_prompt_tokens to"),
        (["tt_ss", "quest"], {}, "leave it out, or use --task=families, math or reasoning_gym"),
    ],
)
def test_check_lengths_names_setting(rows, lengths, message):
    with pytest.raises(UserError, match=message):
        study.check_lengths(components(**lengths), rows, seed=0)


def test_check_lengths_ignores_unused_prompts():
    made = components(max_generator_prompt_tokens=2)
    study.check_lengths(made, ["base", "few_shot", "ttt", "solver_grpo"], seed=0)
    study.check_lengths(made, ["solver_grpo"], seed=0, training=False)


@pytest.mark.parametrize("text", ["[1]", '"tiny"', "null", "7"])
def test_run_study_rejects_non_object_settings(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json holds .* instead of an object of settings"):
        run(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(text)
