"""Tests for mass_jax.config."""

import dataclasses
import json

import pytest

from mass_jax.config import Config, nearest
from mass_jax.rows import METHODS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outer": "verifer"}, "--outer='verifer' is unknown; did you mean 'verifier'?"),
        ({"inner_optimizer": "adm"}, "--inner_optimizer='adm': character 1: 'adm' is unknown; did you mean 'adam', "),
        ({"methods": ("base", "mas")}, "--methods='mas' is unknown; did you mean 'mass'?"),
        ({"lora_targets": ("q_prj",)}, "--lora_targets='q_prj' is unknown; did you mean 'q_proj'?"),
        ({"inner_steps": 0}, "--inner_steps=0 is below its minimum 1"),
        ({"inner_lr": float("nan")}, "--inner_lr=nan is below its minimum 0"),
        ({"seeds": ()}, "--seeds is empty; name at least one"),
        ({"lora_blocks": -1}, "--lora_blocks=-1 is below its minimum 0"),
        ({"max_target_tokens": 3, "max_answer_tokens": 4}, "--max_target_tokens=3 is below --max_answer_tokens=4"),
        ({"generator_lora_blocks": 2}, "--generator_lora_blocks=2 needs --generator=lora"),
        ({"steps": 20, "warmup_steps": 20}, "set --warmup_steps below --steps"),
        ({"methods": ("base", "mass"), "outer": "gold"}, "--methods names 'mass', which --outer=gold excludes"),
        ({"outer": "gold", "controls": True}, "--controls are variants of 'mass'"),
        ({"adjoint": "truncated"}, "--adjoint='truncated' needs a number of inner steps of at least 1"),
        ({"adjoint": "truncated:0"}, "--adjoint='truncated:0' needs a number of inner steps of at least 1"),
        ({"adjoint": "mixed:2"}, "--adjoint='mixed:2' is unknown; did you mean 'mixed'?"),
        (
            {"adjoint_remat": "none"},
            "does not apply to --adjoint=weighted; use auto, save_grads, step, recursive, replay",
        ),
        ({"adjoint": "truncated:2", "adjoint_remat": "step"}, "does not apply to --adjoint=truncated:2; use auto"),
        ({"adjoint_store": "host:x"}, "--adjoint_store='host:x' is unknown; use device, host, disk, or disk:DIRECTORY"),
        (
            {"adjoint_store": "host", "adjoint": "reverse"},
            "apply to --adjoint=reverse; use --adjoint=weighted",
        ),
        ({"adjoint_store": "disk", "adjoint_remat": "recursive"}, "does not apply to --adjoint_remat=recursive"),
        ({"adjoint_store": "host", "adjoint_remat": "replay"}, "does not apply to --adjoint_remat=replay, which keeps"),
        ({"adjoint": "reverse", "adjoint_remat": "replay"}, "use auto, none, save_grads, step, recursive"),
        ({"adjoint": "mixed", "product_chunk": 2}, "--product_chunk=2 does not apply to --adjoint=mixed"),
        ({"attention_block": 64}, "--attention_block=64 needs --attention=blockwise or auto"),
        ({"attention_block": 64, "attention": "kernel"}, "--attention_block=64 needs --attention=blockwise or auto"),
        ({"half_products": True, "compute_dtype": "bfloat16"}, "contradicts --half_products"),
        ({"adapter_product_dtype": "bfloat16"}, "needs activations in bfloat16, but they are float32"),
        ({"tracker": ("wandb", "none")}, "--tracker=wandb,none combines 'none' with others; remove 'none'"),
        ({"tracker": ("tensorbord",)}, "--tracker='tensorbord' is unknown; did you mean 'tensorboard'?"),
        ({"memory": "auto:x"}, "--memory='auto:x' is unknown; use off, auto, or a limit in GiB like auto:24"),
        ({"memory": "auto:inf"}, "--memory='auto:inf' is unknown"),
    ],
)
def test_config_refuses_bad_settings(settings, message):
    with pytest.raises(ValueError, match=r"^--") as caught:
        Config(**settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chosen_methods_respect_outer():
    assert Config().chosen_methods == METHODS
    assert "mass" not in Config(outer="gold").chosen_methods
    assert "mass_gold" not in Config(outer="verifier").chosen_methods


def test_num_solver_attempts_matches_mass_budget():
    assert Config(num_examples=12, num_attempts=6).num_solver_attempts == 18


def test_settings_have_help():
    assert all(len(field.metadata["help"]) > 5 for field in dataclasses.fields(Config))


def test_nearest_omits_distant_suggestion():
    assert nearest("zzz", ["tiny"]) == "Known: tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected an object of settings, got an array"),
        ('"tiny"', "expected an object of settings, got a string"),
        ("null", "expected an object of settings, got null"),
        ("{" * 3, "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"steps": 1, "steps": 2}', "key 'steps' occurs more than once"),
    ],
)
def test_from_json_refuses_invalid_json(text, message):
    with pytest.raises(ValueError, match=message) as error:
        Config.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("steps", "120"), ("steps", 120.0), ("steps", True), ("steps", None), ("gamma", "0.1"), ("gamma", False)),
        *(("model", 3), ("controls", 1), ("controls", "yes"), ("seeds", 0), ("seeds", ["0"]), ("methods", "base")),
        *(("methods", [1]), ("model", ["tiny"]), ("lora_rank", {})),
    ],
)
def test_from_json_refuses_mistyped_setting(name, value):
    text = json.dumps(json.loads(Config().to_json()) | {name: value})
    with pytest.raises(ValueError, match=f"--{name}=.* must be ") as caught:
        Config.from_json(text)
    assert "\n" not in str(caught.value)


def test_config_accepts_integer_for_float():
    assert Config(lora_alpha=8).lora_alpha == 8


def test_located_makes_local_paths_absolute(tmp_path, monkeypatch):
    (tmp_path / "models" / "m").mkdir(parents=True)
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "link").symlink_to("models")
    monkeypatch.chdir(tmp_path)
    config = Config(task="math", model="models/m", train_data="train.jsonl").located()
    assert (config.model, config.train_data) == (str(tmp_path / "models" / "m"), str(tmp_path / "train.jsonl"))
    assert config.eval_data == "math500"
    assert Config(model="link/m").located().model == config.model
    monkeypatch.chdir(tmp_path / "models")
    assert Config(task="math", model="m", train_data="../train.jsonl").located() == config
    assert config.located() == config


def test_located_makes_file_of_own_code_absolute(tmp_path, monkeypatch):
    (tmp_path / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    assert Config(sampler="mine.py:Make").located().sampler == f"{tmp_path}/mine.py:Make"
    own = Config(task="mine.py:make", train_data="mine.py").located()
    assert (own.task, own.train_data) == (f"{tmp_path}/mine.py:make", f"{tmp_path}/mine.py")
    for name in ("native", "my.module:Make", "absent.py:Make"):
        assert Config(sampler=name).located().sampler == name


def test_located_keeps_names(tmp_path, monkeypatch):
    for name in ("tiny", "math", "math500"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert Config().located() == Config()
    assert Config(model="org/name").located().model == "org/name"


def test_from_json_refuses_code_that_the_user_did_not_name():
    """A config.json may come from somebody else."""
    text = Config(inner_optimizer="clip(1.0) | own.py:make").to_json()
    with pytest.raises(ValueError, match=r"settings name code to run, inner_optimizer='clip.*'; pass --inner_"):
        Config.from_json(text)
    assert Config.from_json(text, ["clip(1.0) | own.py:make"]).to_json() == text


def test_located_makes_files_of_optimizers_absolute(tmp_path, monkeypatch):
    (tmp_path / "own.py").touch()
    monkeypatch.chdir(tmp_path)
    assert Config(policy_optimizer="own.py:make").located().policy_optimizer == f"{tmp_path.resolve()}/own.py:make"


def test_from_json_keeps_behavior_of_earlier_versions():
    """A config.json of version 0.1 lacks the settings that were added since."""
    config = Config.from_json('{"inner_optimizer": "adamw", "inner_lr": 0.03}')
    assert (config.given_eps_root, config.rejected_value, config.drift_every) == (1e-8, 0.0, 0)
    assert (config.policy_optimizer, config.scorer_optimizer, config.solver_grpo_optimizer) == ("adam",) * 3
