"""Adapter files: exchange with peft in both directions, and errors."""

import dataclasses
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mass_jax.errors import UserError
from mass_jax.llama import Llama, adapter_config, lora, peft, weights

# Raised by peft about transformers.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def theirs():
    """The peft package; imported here because every test worker would wait seconds for it at collection."""
    return pytest.importorskip("peft")


@pytest.fixture
def base(config, make_params, tmp_path):
    weights.save(tmp_path / "base", make_params(config), config)
    return transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")


def _torch_logits(model, tokens_BT):
    with torch.no_grad():
        return model.eval()(torch.tensor(np.asarray(tokens_BT))).logits.numpy()


@pytest.mark.parametrize("rslora", [False, True])
def test_saved_adapter_matches_in_peft(
    config, make_params, make_adapter, tokens_BT, base, tmp_path, theirs, rslora, assert_close
):
    adapter = make_adapter(config, rank=4, targets=("q_proj", "o_proj", "down_proj"), scale=3.0 if rslora else 1.5)
    peft.save(tmp_path, adapter, rslora=rslora)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_alpha"] == 6
    wanted = _torch_logits(theirs.PeftModel.from_pretrained(base, tmp_path), tokens_BT)
    again = peft.load(tmp_path, config)
    assert (again.scale, again.batched) == (adapter.scale, False)
    assert_close(again, adapter, 1e-30)
    variables = lora.variables(make_params(config), again)
    found = jax.jit(Llama(config).apply)(variables, tokens_BT)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    bare = jax.jit(Llama(config).apply)({"params": make_params(config)}, tokens_BT)
    assert float(jnp.max(jnp.abs(found - bare))) > 1e-2


def test_adapter_from_peft_matches(config, make_params, tokens_BT, base, tmp_path, theirs):
    settings = theirs.LoraConfig(r=2, lora_alpha=8, target_modules=["v_proj", "up_proj"], init_lora_weights=False)
    model = theirs.get_peft_model(base, settings)
    model.save_pretrained(tmp_path / "adapter")
    adapter = peft.load(tmp_path / "adapter", config)
    variables = lora.variables(make_params(config), adapter)
    found = jax.jit(Llama(config).apply)(variables, tokens_BT)
    np.testing.assert_allclose(found, _torch_logits(model, tokens_BT), atol=1e-4)


@pytest.fixture
def edit_config(config, make_adapter, tmp_path):
    """Returns a function that writes an adapter with changed settings; a value of `...` removes the setting."""

    def edit(**changes):
        peft.save(tmp_path, make_adapter(config, rank=4, targets=("q_proj", "v_proj"), scale=1.5))
        file = tmp_path / "adapter_config.json"
        settings = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))
        return tmp_path

    return edit


@pytest.mark.parametrize(
    ("key", "value", "loads"),
    [
        ("init_lora_weights", False, True),
        ("init_lora_weights", "gaussian", True),
        ("init_lora_weights", "orthogonal", True),
        ("init_lora_weights", "eva", True),
        ("init_lora_weights", "pissa", False),
        ("init_lora_weights", "pissa_niter_16", False),
        ("init_lora_weights", "PiSSA", False),
        ("init_lora_weights", "olora", False),
        ("init_lora_weights", "corda", False),
        ("init_lora_weights", "loftq", False),
        ("init_lora_weights", "lora_ga", False),
        ("init_lora_weights", "mica", False),
        ("init_lora_weights", "from_the_future", False),
        ("lora_dropout", 0.3, True),
        ("inference_mode", False, True),
        ("base_model_name_or_path", "some/model", True),
        ("revision", "main", True),
        ("task_type", None, True),
        ("task_type", "SEQ_CLS", False),
        ("peft_version", "0.99.0", True),
        ("auto_mapping", {"base_model_class": "LlamaForCausalLM"}, True),
        ("eva_config", {"rho": 1.0}, True),
        ("qalora_group_size", 8, True),
        ("use_rslora", True, True),
        ("lora_alpha", 3.5, True),
        ("lora_alpha", 0, True),
        ("target_modules", r"model\.layers\.\d+\.self_attn\.(q|v)_proj", True),
        ("target_modules", ["self_attn.q_proj", "v_proj", "c_attn"], True),
        ("target_modules", r"(?=model).*[qv]_proj", False),
        ("target_modules", ["layers.0.self_attn.q_proj", "v_proj"], False),
        ("target_modules", ["q_proj", "v_proj", "lm_head"], False),
        ("target_modules", ["c_attn"], False),
        ("bias", "all", False),
        ("bias", "lora_only", False),
        ("rank_pattern", {"q_proj": 2}, False),
        ("alpha_pattern", {"q_proj": 2}, False),
        ("use_dora", True, False),
        ("use_qalora", True, False),
        ("alora_invocation_tokens", [5, 6], False),
        ("layer_replication", [[0, 2], [1, 2]], False),
        ("layers_to_transform", [0], False),
        ("layers_to_transform", 0, False),
        ("exclude_modules", ["v_proj"], False),
        ("modules_to_save", ["lm_head"], False),
        ("trainable_token_indices", [1, 2], False),
        ("target_parameters", ["self_attn.q_proj.weight"], False),
        ("lora_bias", True, False),
        ("fan_in_fan_out", True, False),
        ("megatron_config", {"tp": 2}, False),
        ("use_bdlora", {"nblocks": 2}, False),
        ("arrow_config", {"top_k": 1}, False),
        ("kasa_config", {"beta": 0.1}, False),
        ("monteclora_config", {"num_samples": 2}, False),
        ("corda_config", {"corda_method": "kpm"}, False),
        ("peft_type", "IA3", False),
        ("a_key_from_the_future", 0, False),
        ("a_key_from_the_future", "", False),
        ("a_key_from_the_future", {}, True),
    ],
)
def test_setting_matches_peft_or_fails(config, make_params, base, tokens_BT, edit_config, theirs, key, value, loads):
    path = edit_config(**{key: value})
    if not loads:
        with pytest.raises(UserError, match=repr(key)) as caught:
            peft.load(path, config)
        assert "\n" not in str(caught.value)
        return
    adapter = peft.load(path, config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns about unknown keys
        wanted = _torch_logits(theirs.PeftModel.from_pretrained(base, path), tokens_BT)
    found = jax.jit(Llama(config).apply)(lora.variables(make_params(config), adapter), tokens_BT)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_pissa_loads_only_if_converted(config, make_params, base, tokens_BT, tmp_path, theirs, init):
    """Follows peft in training, saving and converting an adapter that changes the base weights."""
    settings = theirs.LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"], init_lora_weights=init)
    model = theirs.get_peft_model(base, settings)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = init
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    wanted = _torch_logits(model, tokens_BT)
    model.save_pretrained(tmp_path / "original")
    with pytest.raises(UserError, match=f"'init_lora_weights' is '{init}'"):
        peft.load(tmp_path / "original", config)
    model.save_pretrained(tmp_path / "new", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    adapter = peft.load(tmp_path / "new", config)
    variables = lora.variables(make_params(config), adapter)
    np.testing.assert_allclose(jax.jit(Llama(config).apply)(variables, tokens_BT), wanted, atol=1e-4)


def test_every_peft_field_is_known_or_refused(config, edit_config, theirs):
    """A field that a later version of peft adds is refused once it is set."""
    defaults = theirs.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM").to_dict()
    peft.load(edit_config(**{**defaults, "target_modules": ["q_proj", "v_proj"]}), config)
    for key in set(defaults) - set(adapter_config.READ) - set(adapter_config.WITHOUT_EFFECT):
        with pytest.raises(UserError, match=repr(key)):
            peft.load(edit_config(**{key: "from the future"}), config)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("r", ..., "'r' is missing"),
        ("r", "4", "'r' is '4'"),
        ("r", 4.0, "'r' is 4.0"),
        ("r", True, "'r' is True"),
        ("r", -4, "'r' is -4"),
        ("r", None, "'r' is None"),
        ("r", 8, r"has shape \(4, 16\), but the model and adapter_config\.json require \(8, 16\)"),
        ("lora_alpha", ..., "'lora_alpha' is missing"),
        ("lora_alpha", "8", "'lora_alpha' is '8'"),
        ("lora_alpha", float("nan"), "'lora_alpha' is nan"),
        ("lora_alpha", 10**400, "'lora_alpha' is 10"),
        ("target_modules", ..., "'target_modules' is missing"),
        ("target_modules", None, "'target_modules' is None"),
        ("target_modules", [], r"'target_modules' is \[\]"),
        ("target_modules", ["q_proj", 3], "'target_modules' is"),
        ("target_modules", ["q_proj"], "unexpected '.*v_proj"),
        ("target_modules", "all-linear", "lacks .*down_proj"),
        ("use_rslora", "yes", "'use_rslora' is 'yes'"),
        ("lora_dropout", "0.1", "'lora_dropout' is '0.1'"),
        ("peft_type", ..., "'peft_type' is missing"),
    ],
)
def test_mistyped_setting_is_named(config, edit_config, key, value, words):
    with pytest.raises(UserError, match=words) as caught:
        peft.load(edit_config(**{key: value}), config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "3", "[" * 100_000, "\xff"])
def test_unreadable_adapter_config_is_named(config, edit_config, content):
    path = edit_config()
    (path / "adapter_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"adapter_config\.json (is not JSON|contains a JSON)") as caught:
        peft.load(path, config)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(config, edit_config):
    path = edit_config()
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(
        FileNotFoundError, match=r"adapter_model\.safetensors does not exist: .*safe_serialization=True"
    ):
        peft.load(path, config)


def test_adapter_of_other_model_is_named(config, make_adapter, tmp_path):
    peft.save(tmp_path, make_adapter(config))
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.down_proj\.lora_A\.weight has shape \(2, 24\)"):
        peft.load(tmp_path, dataclasses.replace(config, intermediate_size=28))
    with pytest.raises(ValueError, match=r"unexpected .*layers\.1"):
        peft.load(tmp_path, dataclasses.replace(config, num_hidden_layers=1))
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        peft.load(tmp_path / "nowhere", config)
