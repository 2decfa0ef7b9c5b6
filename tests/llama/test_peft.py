"""Adapters of ours act the same in peft, and peft's in ours."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mass_jax.llama import Llama, lora, peft, weights

theirs = pytest.importorskip("peft")
# Of peft about transformers, not of ours.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def base(config, make_params, tmp_path):
    weights.save(tmp_path / "base", make_params(config), config)
    return transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")


def _torch_logits(model, tokens_BT):
    with torch.no_grad():
        return model.eval()(torch.tensor(np.asarray(tokens_BT))).logits.numpy()


@pytest.mark.parametrize("rslora", [False, True])
def test_ours_gives_the_same_logits_in_peft(
    config, make_params, make_adapter, tokens_BT, base, tmp_path, rslora, assert_close
):
    adapter = make_adapter(config, rank=4, targets=("q_proj", "o_proj", "down_proj"))
    peft.save(tmp_path, adapter, alpha=6.0, rslora=rslora)
    wanted = _torch_logits(theirs.PeftModel.from_pretrained(base, tmp_path), tokens_BT)
    again, factor = peft.load(tmp_path, config)
    assert factor == (3.0 if rslora else 1.5)
    assert_close(again, adapter, 1e-30)
    variables = lora.variables(make_params(config), lora.scaled(again, factor))
    found = jax.jit(Llama(config).apply)(variables, tokens_BT)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    bare = jax.jit(Llama(config).apply)({"params": make_params(config)}, tokens_BT)
    assert float(jnp.max(jnp.abs(found - bare))) > 1e-2


def test_theirs_gives_the_same_logits_here(config, make_params, tokens_BT, base, tmp_path):
    settings = theirs.LoraConfig(r=2, lora_alpha=8, target_modules=["v_proj", "up_proj"], init_lora_weights=False)
    model = theirs.get_peft_model(base, settings)
    model.save_pretrained(tmp_path / "adapter")
    adapter, factor = peft.load(tmp_path / "adapter", config)
    variables = lora.variables(make_params(config), lora.scaled(adapter, factor))
    found = jax.jit(Llama(config).apply)(variables, tokens_BT)
    np.testing.assert_allclose(found, _torch_logits(model, tokens_BT), atol=1e-4)


@pytest.mark.parametrize(("key", "value"), [("use_dora", True), ("rank_pattern", {"x": 3}), ("peft_type", "IA3")])
def test_what_is_not_plain_lora_is_named(config, make_adapter, tmp_path, key, value):
    peft.save(tmp_path, make_adapter(config))
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, key: value}))
    with pytest.raises(ValueError, match=key):
        peft.load(tmp_path, config)


def test_an_adapter_of_another_model_is_named(config, make_adapter, tmp_path):
    peft.save(tmp_path, make_adapter(config))
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.down_proj\.lora_A\.weight has shape \(2, 24\)"):
        peft.load(tmp_path, dataclasses.replace(config, intermediate_size=28))
    with pytest.raises(ValueError, match=r"unexpected .*layers\.1"):
        peft.load(tmp_path, dataclasses.replace(config, num_hidden_layers=1))
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        peft.load(tmp_path / "nowhere", config)
