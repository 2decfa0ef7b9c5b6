"""Sampling from vLLM itself: log-probabilities, adapters, random seeds and the start-up probe.

`VLLM_PYTHON=.../bin/python pytest -m slow tests/sampling/remote` runs them, with the Python of an environment that has
vLLM; docs/guides/vllm.md tells how to install it on a machine without an accelerator.
"""

import dataclasses
import os

import jax
import numpy as np
import pytest

from mass_jax import llama, sampling
from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig, lora, weights
from mass_jax.llama.loading import model_directory
from mass_jax.sampling.remote import adapters as adapter_files
from mass_jax.sampling.remote.vllm import Server, Vllm
from mass_jax.serving import export
from tests.sampling.remote import vllm_process
from tests.sampling.remote.agreement import PROMPTS, draw, logprobs, random_adapters, scored
from tests.small_models import llama_params

PYTHON = os.environ.get("VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON does not name the Python of an environment with vLLM"),
]
TOLERANCE = 2e-4  # nats per token; the largest measured difference was 3e-5


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A random Llama with grouped-query attention; vLLM's attention on the CPU needs heads of 32 features."""
    path = tmp_path_factory.mktemp("model")
    tiny = LlamaConfig.from_directory(model_directory("tiny"))
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    config = dataclasses.replace(tiny, **heads, num_hidden_layers=2, initializer_range=0.2)
    weights.save(path, llama_params(config), config)
    export.copy_tokenizer(model_directory("tiny"), path)
    return path


@pytest.fixture(scope="module")
def loaded(directory):
    return llama.load(directory)


@pytest.fixture(scope="module")
def url(directory, tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    with vllm_process.serving(PYTHON, directory, log) as address:
        yield address


@pytest.fixture
def sampler(loaded, url):
    return Vllm(loaded.model, loaded.tokenizer, Server(url, timeout=120.0, tolerance=TOLERANCE))


@pytest.fixture(scope="module")
def batched(loaded):
    """Adapters of the prompts, of a rank that vLLM does not accept; they change features about half as much as W."""
    return random_adapters(loaded.model.config, 2, 20, deviation=0.1)


def greedy(sampler, loaded, adapters):
    settings = sampling.Settings(temperature=0.0)
    rows = draw(sampler, loaded.params, adapters=adapters, settings=settings, num_samples=1, max_new_tokens=16)
    return [one for (one,) in rows]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
@pytest.mark.parametrize("kind", ["base", "shared", "per prompt"])
def test_log_probabilities_are_those_of_the_tempered_adapted_model(loaded, sampler, batched, kind, temperature):
    shared = lora.split(batched)[1]
    adapters, ones = {
        "base": (None, (None, None)),
        "shared": (shared, (shared, shared)),
        "per prompt": (batched, lora.split(batched)),
    }[kind]
    settings = sampling.Settings(temperature=temperature)
    rows = draw(sampler, loaded.params, adapters=adapters, settings=settings, num_samples=4, max_new_tokens=16)
    for prompt, adapter, row in zip(PROMPTS, ones, rows, strict=True):
        assert len(row) == 4
        for one in row:
            own = scored(loaded, prompt, one, adapter, temperature or 1.0)
            np.testing.assert_allclose(one.logprobs_T, own, atol=TOLERANCE)
            assert one.finish == ("stop" if one.tokens_T[-1] == 2 else "length")
            assert one.finish == "stop" or len(one.tokens_T) == 16


@pytest.mark.parametrize("adapted", [False, True])
def test_greedy_text_is_that_of_the_native_sampler(loaded, sampler, batched, adapted):
    adapters = batched if adapted else None
    theirs = greedy(sampler, loaded, adapters)
    ours = greedy(sampling.Engine(loaded.model, loaded.tokenizer), loaded, adapters)
    for prompt, adapter, mine, yours in zip(PROMPTS, lora.split(batched), ours, theirs, strict=True):
        rows = np.sort(logprobs(loaded, adapter if adapted else None, prompt, mine.tokens_T, 1.0))
        assert (rows[:, -1] - rows[:, -2]).min() > TOLERANCE, "choose prompts without near ties"
        assert (yours.tokens_T.tolist(), yours.text) == (mine.tokens_T.tolist(), mine.text)
    assert ours[0].text != ours[1].text


def test_samples_end_at_each_stop_token(loaded, sampler):
    stops = tuple(range(2, 100))
    rows = draw(sampler, loaded.params, stop_tokens=stops, num_samples=8, max_new_tokens=16)
    samples = [one for row in rows for one in row]
    assert {one.finish for one in samples} == {"stop"}
    assert all(set(one.tokens_T[:-1].tolist()).isdisjoint(stops) for one in samples)


def test_sample_depends_on_its_own_prompt_and_key(loaded, sampler, batched):
    """Holds for this model; in general, rounding that depends on the batch can change a sample."""
    both = draw(sampler, loaded.params, adapters=batched)
    alone = draw(sampler, loaded.params, PROMPTS[:1], adapters=lora.split(batched)[0])
    assert [one.tokens_T.tolist() for one in both[0]] == [one.tokens_T.tolist() for one in alone[0]]
    assert both[0][0].tokens_T.tolist() != both[0][1].tokens_T.tolist()


def test_more_adapters_than_the_server_holds(loaded, sampler):
    count = 12  # vLLM reads those again that it dropped
    many = random_adapters(loaded.model.config, count, 3, deviation=0.1)
    prompts = [[1, 20 + n] for n in range(count)]
    rows = draw(sampler, loaded.params, prompts, keys=count, adapters=many)
    for prompt, adapter, row in zip(prompts, lora.split(many), rows, strict=True):
        for one in row:
            np.testing.assert_allclose(one.logprobs_T, scored(loaded, prompt, one, adapter, 1.0), atol=TOLERANCE)


def test_adapters_are_unloaded_and_their_files_removed(loaded, sampler, batched, monkeypatch, tmp_path):
    monkeypatch.setattr(adapter_files, "_SHARED_MEMORY", str(tmp_path))
    with sampler._loader.loaded(lora.split(batched)) as names:
        assert {*names} < {card["id"] for card in models(sampler)}
        assert len(list(tmp_path.glob("mass_jax-*/*"))) == 2
    draw(sampler, loaded.params, adapters=batched)
    assert len(models(sampler)) == 1
    assert list(tmp_path.iterdir()) == []


def models(sampler):
    return sampler._client.get("models", 1 << 20)["data"]


def test_probe_refuses_other_base_weights(loaded, sampler):
    other = jax.tree.map(lambda leaf: leaf * np.float32(1.1), loaded.params)
    with pytest.raises(
        UserError, match=r"of a fixed text differ .* more than --sampler_tolerance=0.0002; serve the"
    ) as e:
        sampler.update(other, 1)
    assert "\n" not in str(e.value)


def test_adapter_of_a_larger_rank_is_refused_in_one_line(loaded, sampler):
    large = lora.split(random_adapters(loaded.model.config, 1, 40))[0]
    with pytest.raises(UserError, match=r"refused /load_lora_adapter .*64.*; raise the server's --max-lora-rank") as e:
        draw(sampler, loaded.params, adapters=large)
    assert "\n" not in str(e.value)
    assert len(models(sampler)) == 1


def test_adapter_that_the_server_cannot_read_is_refused_in_one_line(sampler, tmp_path):
    with pytest.raises(UserError, match=r"HTTP 404: .*No adapter found .*; run the server on this machine") as e:
        sampler._loader._load("missing", tmp_path / "missing" / "adapter")
    assert "\n" not in str(e.value)


def test_address_without_version_is_named(loaded, url):
    with pytest.raises(UserError, match=r"HTTP 404: Not Found\); end the address with /v1$"):
        Vllm(loaded.model, loaded.tokenizer, Server(url.removesuffix("/v1"))).update(loaded.params, 1)


def test_text_longer_than_the_context_is_refused_in_one_line(loaded, sampler):
    """vLLM shortens samples silently if the prompt itself fits."""
    positions = loaded.model.config.max_position_embeddings
    sampler.update(loaded.params, 1)
    with pytest.raises(UserError, match=r"cut a sample .*'length'.* and a larger --max-model-len") as e:
        draw(sampler, loaded.params, max_new_tokens=positions)
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=r"refused /completions .*; raise the server's --max-model-len") as e:
        draw(sampler, loaded.params, [[1] * positions])
    assert "\n" not in str(e.value)
