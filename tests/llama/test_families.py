"""Families of models: parity with transformers and peft in every way that the package runs a model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mass_jax import sampling
from mass_jax.errors import UserError
from mass_jax.llama import Llama, LlamaConfig, decode, lora, losses, peft, shared_prompt, suffix, weights
from mass_jax.llama.names import entries
from tests.llama.families import FAMILIES, LENGTH, SIZES, random_settings, reference, texts, torch_logits
from tests.small_models import llama_params

torch.set_num_threads(1)  # tests run in parallel, and torch's threads spin while they wait for a core
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NEW = 2  # tokens that are decoded
# Tied and untied, head features that divide the width and that do not.
OWN = {
    "mistral": {"sliding_window": LENGTH, "head_dim": 6},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": LENGTH,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "smollm3": {"no_rope_layers": [0, 1], "tie_word_embeddings": False, "rope_theta": 100.0},
}


def slow(*names):
    """Marks parameters as slow."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def draw_adapter(config, seed=3):
    """Returns an adapter on every projection, with nonzero B."""
    shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), config, 2, scale=1.5))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), shapes)


def computed(config, tokens_BT, mask_BT, adapter, params):
    """Returns logits of all texts, the same logits by decoding the last tokens of the first text, and a gradient."""
    model, variables = Llama(config), lora.variables(params, adapter)
    layers, adapters = decode.unstack(params), decode.unstack_adapter(adapter, config.num_hidden_layers)
    prompt, length_N = tokens_BT[:1, : LENGTH - NEW], jnp.array([LENGTH - NEW])
    logits_1V, caches = decode.prefill(model, layers, adapters, prompt, length_N, 1, NEW)
    decoded = [logits_1V]
    for i in range(NEW - 1):
        step = tokens_BT[:1, LENGTH - NEW + i][None], length_N, jnp.asarray(i)
        logits_11V, caches = decode.step(model, layers, adapters, caches, *step)
        decoded.append(logits_11V[0])

    def loss(adapter):
        nll_BT = losses.token_nll(model, lora.variables(params, adapter), tokens_BT, mask_BT)
        return jnp.sum(jnp.where(mask_BT[:, 1:], nll_BT, 0))

    return {
        "logits": model.apply(variables, tokens_BT, mask_BT),
        "decoded": jnp.concatenate(decoded),
        "gradient": jax.grad(loss)(adapter).leaves["layers"],
    }


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Returns a model's configuration and parameters, its directory, and the model and an adapter in torch."""
    theirs = pytest.importorskip("peft")
    config = LlamaConfig.from_dict({**SIZES, **OWN[request.param], "model_type": request.param})
    directory, params, adapter = tmp_path_factory.mktemp(request.param), llama_params(config), draw_adapter(config)
    weights.save(directory, params, config)
    peft.save(directory / "adapter", adapter)
    base = reference(directory)
    adapted = theirs.PeftModel.from_pretrained(reference(directory), directory / "adapter", is_trainable=True).eval()
    return config, params, adapter, directory, base, adapted


def test_family_matches_transformers(family):
    config, params, adapter, _, base, adapted = family
    tokens_BT, mask_BT = texts(config)
    run = jax.jit(lambda adapter: computed(config, tokens_BT, mask_BT, adapter, params))
    for model, leaves in ((adapted, adapter), (base, jax.tree.map(jnp.zeros_like, adapter))):
        found, wanted = run(leaves), torch_logits(model, tokens_BT, mask_BT)
        np.testing.assert_allclose(found["logits"][mask_BT], wanted[mask_BT], atol=1e-4, rtol=0)
        np.testing.assert_allclose(found["decoded"], wanted[0, -NEW - 1 : -1], atol=1e-4, rtol=0)
    tokens, mask = torch.tensor(tokens_BT, dtype=torch.long), torch.tensor(mask_BT)
    scores = torch.log_softmax(adapted(tokens, attention_mask=mask).logits[:, :-1], -1)
    (-scores.gather(-1, tokens[:, 1:, None])[..., 0] * mask[:, 1:]).sum().backward()
    gradient = run(adapter)["gradient"]
    wanted = {name: leaf.grad.numpy().T for name, leaf in adapted.named_parameters() if leaf.requires_grad}
    assert len(wanted) == 2 * 7 * config.num_hidden_layers
    for name, leaf in wanted.items():
        *_, layer, parent, projection, letter, _, _ = name.split(".")
        ours = gradient[parent][projection][letter[-1].lower()][int(layer)]
        np.testing.assert_allclose(ours, leaf, atol=1e-4 * max(1.0, abs(leaf).max()), rtol=0)


def test_family_round_trips(family, tmp_path):
    config, params, adapter, directory, base, adapted = family
    assert LlamaConfig.from_directory(directory) == config
    base.save_pretrained(tmp_path)
    assert LlamaConfig.from_directory(tmp_path) == config
    jax.tree.map(np.testing.assert_array_equal, weights.load(tmp_path, config), params)
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.load(tmp_path / "adapter", config)
    assert again.scale == adapter.scale
    jax.tree.map(np.testing.assert_array_equal, again.leaves, adapter.leaves)


def modes(config, tokens_BT, params):
    """Returns the loss of the second half of each text in the ways that the package computes it."""
    half, rows, model = LENGTH // 2, len(tokens_BT), Llama(config)
    tokens_BT = jnp.asarray(tokens_BT).at[:, :half].set(tokens_BT[0, :half])  # one prompt for all rows
    continued = shared_prompt.Continued(tokens_BT[0, :half], half, tokens_BT[:, half:], jnp.ones((rows, LENGTH - half)))
    first, second = suffix.split(model, params, last=1)

    def nll(params, prefix_BTD=None, model=model, **changes):
        model = Llama(dataclasses.replace(model.config, **changes))
        return losses.token_nll(model, {"params": params}, tokens_BT, None, prefix_BTD)[:, half - 1 :]

    return {
        "plain": nll(params),
        "blockwise": nll(params, attention="blockwise", attention_block=4),
        "shared prompt": shared_prompt.continuation_nll(model, {"params": params}, continued),
        "shared prompt of suffix": shared_prompt.continuation_nll(
            second.model, {"params": second.params}, continued, shared_prompt.prefix(first, continued)
        ),
        "suffix": nll(second.params, suffix.prefix(first, tokens_BT), second.model),
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[:2]] + ["qwen3", "smollm3"]
)
def test_family_agrees_in_every_mode(x64, name):
    config = LlamaConfig.from_dict({**SIZES, **OWN[name], "model_type": name})
    params = llama_params(config)
    plain, *others = jax.jit(lambda: list(modes(config, texts(config)[0], params).values()))()
    for other in others:
        np.testing.assert_allclose(other, plain, atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", ["mistral", *slow("qwen2", "qwen3", "smollm3")])
def test_family_supports_half_products(name):
    config = LlamaConfig.from_dict({**SIZES, **OWN[name], "model_type": name})
    params, (tokens_BT, _) = llama_params(config), texts(config)
    exact, half = (
        jax.jit(Llama(dataclasses.replace(config, half_products=half)).apply)({"params": params}, tokens_BT)
        for half in (False, True)
    )
    assert 1e-5 < np.abs(half - exact).max() < 3e-2 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_texts_beyond_window_are_refused(name):
    config = LlamaConfig.from_dict({**SIZES, **OWN[name], "model_type": name})
    model, shape = Llama(config), jax.eval_shape(lambda: llama_params(config))

    def run(length, **changes):
        tokens = jnp.zeros((1, length), jnp.int32)
        model = Llama(dataclasses.replace(config, **changes))
        return jax.eval_shape(lambda params: model.apply({"params": params}, tokens), shape)

    assert run(LENGTH).shape == (1, LENGTH, config.vocab_size)
    with pytest.raises(UserError, match=f"texts of {LENGTH + 1} tokens .* exceed the sliding window of {LENGTH}"):
        run(LENGTH + 1)
    with pytest.raises(UserError, match=f"texts of {LENGTH + 2} tokens"):  # with the slots for new tokens
        jax.eval_shape(
            lambda params: decode.prefill(
                model, decode.unstack(params), [{}, {}], jnp.zeros((1, LENGTH), jnp.int32), jnp.array([3]), 1, 2
            ),
            shape,
        )
    assert run(LENGTH + 1, sliding_window=None)
    if name == "qwen2":  # its first layer has full attention
        first, _ = suffix.split(model, llama_params(config), last=1)
        assert first.model.config.sliding_window is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", FAMILIES)
def test_random_configuration_matches_transformers(name, seed, tmp_path):
    config = LlamaConfig.from_dict(random_settings(name, seed))
    params, (tokens_BT, mask_BT) = llama_params(config), texts(config)
    weights.save(tmp_path, params, config)
    theirs = reference(tmp_path)
    found = np.asarray(jax.jit(Llama(config).apply)({"params": params}, jnp.asarray(tokens_BT), jnp.asarray(mask_BT)))
    np.testing.assert_allclose(found[mask_BT], torch_logits(theirs, tokens_BT, mask_BT)[mask_BT], atol=1e-4, rtol=0)
    theirs.save_pretrained(tmp_path / "again")
    assert LlamaConfig.from_directory(tmp_path / "again") == config
    if seed < 2:
        assert greedy(config, params, tokens_BT[:, :5]) == torch_greedy(theirs, tokens_BT[:, :5])


def greedy(config, params, prompts_NP):
    """Returns the tokens of greedy decoding up to LENGTH."""
    count = len(prompts_NP)
    run = functools.partial(
        sampling.sample,
        Llama(config),
        num_samples=1,
        max_new_tokens=LENGTH - prompts_NP.shape[1],
        settings=sampling.Settings(temperature=0.0),
    )
    keys_N = jax.random.split(jax.random.key(0), count)
    samples = jax.jit(run)(params, jnp.asarray(prompts_NP), jnp.full(count, prompts_NP.shape[1]), keys_N)
    return np.asarray(samples.tokens_NMT[:, 0]).tolist()


def torch_greedy(model, prompts_NP):
    """Returns the same tokens from transformers."""
    with torch.no_grad():
        whole = model.generate(
            torch.tensor(prompts_NP, dtype=torch.long), do_sample=False, max_length=LENGTH, eos_token_id=None
        )
    return whole[:, prompts_NP.shape[1] :].tolist()


# Sizes and number of parameters of published models.
PUBLISHED = {
    "Mistral-7B-v0.1": ("mistral", (4096, 14336, 32, 32, 8, 32000), {"sliding_window": 4096}, 7_241_732_096),
    "Qwen2.5-0.5B": ("qwen2", (896, 4864, 24, 14, 2, 151936), {"tie_word_embeddings": True}, 494_032_768),
    "Qwen3-0.6B": (
        "qwen3", (1024, 3072, 28, 16, 8, 151936), {"tie_word_embeddings": True, "head_dim": 128}, 596_049_920
    ),
    "SmolLM3-3B": ("smollm3", (2048, 11008, 36, 16, 4, 128256), {}, 3_075_098_624),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_model_has_names_of_transformers(name):
    model_type, sizes, own, count = PUBLISHED[name]
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    settings = {**dict(zip((*keys, "vocab_size"), sizes, strict=True)), **own}
    config = LlamaConfig.from_dict({**settings, "model_type": model_type})
    params = jax.eval_shape(Llama(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(model_type, **settings)
        )
    wanted = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    assert {entry.name: entry.shape for entry in entries(config)} == wanted


def test_biases_without_setting_are_named(tmp_path):
    config = LlamaConfig.from_dict({**SIZES, "model_type": "qwen2"})
    weights.save(tmp_path, llama_params(config), config)
    with pytest.raises(UserError, match=r"unexpected .*bias.*: check that config\.json belongs to these weights"):
        weights.load(tmp_path, LlamaConfig.from_dict({**SIZES, "model_type": "mistral"}))
