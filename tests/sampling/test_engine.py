"""Engine: agreement with `sample`, stop strings, compilations and errors."""

import dataclasses
import functools
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import transformers

from mass_jax import sampling
from mass_jax.llama import Llama, LlamaConfig, lora
from mass_jax.types import Adapter
from tests.small_models import LLAMA, llama_params

_WORDS = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("abcde", repeat=n)][:50]
_CONFIG = dataclasses.replace(
    LLAMA,
    vocab_size=50,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    pad_token_id=49,
)
_PROMPTS = [[1, 2, 3], list(range(11)), [7]]
_KEYS = functools.partial(jax.random.split, num=3)
_STRINGS = ("dab", "eee", "bcdb")


@pytest.fixture(scope="module")
def params():
    return sampling.unstack(llama_params(_CONFIG))


@pytest.fixture(scope="module")
def engine():
    """Returns an engine whose tokens are one to three letters, so that stop strings span tokens."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(_WORDS)}, "a"))
    words.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    return sampling.Engine(Llama(_CONFIG), tokenizer, check_every=4)


def test_engine_matches_sample(engine, params):
    rng, fresh = np.random.default_rng(4), lora.init(jax.random.key(3), _CONFIG, 2)
    leaves = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.standard_normal((3, *x.shape)), jnp.float32), fresh.leaves)
    adapters = fresh.many(leaves)
    keys_N = _KEYS(jax.random.key(2))
    found = engine(params, _PROMPTS, keys_N, num_samples=2, max_new_tokens=21, stop_tokens=(5, 6), adapters=adapters)

    prompts_NP = np.array([prompt + [0] * (11 - len(prompt)) for prompt in _PROMPTS])
    bound = functools.partial(sampling.sample, Llama(_CONFIG), num_samples=2, max_new_tokens=21, stop_tokens=(5, 6))
    wanted = jax.jit(bound)(params, prompts_NP, np.array([3, 11, 1]), keys_N, adapters=adapters)
    for n, m in np.ndindex(3, 2):
        count = int(wanted.lengths_NM[n, m])
        np.testing.assert_array_equal(found[n][m].tokens_T, wanted.tokens_NMT[n, m, :count])
        np.testing.assert_allclose(found[n][m].logprobs_T, wanted.logprobs_NMT[n, m, :count], atol=1e-5)
        assert found[n][m].finish == ("stop" if wanted.finished_NM[n, m] else "length")
        assert found[n][m].text == "".join(_WORDS[token] for token in found[n][m].tokens_T)
    assert {sample.finish for row in found for sample in row} == {"stop", "length"}


def _cut(free: sampling.Continuation) -> tuple[list[int], str, str]:
    """Returns the tokens, text and finish of a sample up to a stop string, found token by token."""
    text = ""
    for count, token in enumerate(free.tokens_T, 1):
        text += _WORDS[token]
        starts = [text.find(string) for string in _STRINGS if string in text]
        if starts:
            return free.tokens_T[:count].tolist(), text[: min(starts)], "stop"
    return free.tokens_T.tolist(), text, free.finish


def test_engine_ends_samples_at_stop_string(engine, params):
    draw = functools.partial(engine, params, _PROMPTS, num_samples=8, max_new_tokens=30, stop_tokens=(5,))
    keys_N, seen = _KEYS(jax.random.key(5)), set()
    free, stopped = draw(keys_N), draw(keys_N, stop_strings=_STRINGS)
    for before, after in zip(itertools.chain(*free), itertools.chain(*stopped), strict=True):
        tokens, text, finish = _cut(before)
        assert (after.tokens_T.tolist(), after.text, after.finish) == (tokens, text, finish)
        np.testing.assert_array_equal(after.logprobs_T, before.logprobs_T[: len(tokens)])
        seen.add((finish, len(tokens) < len(before.tokens_T)))
    assert seen == {("stop", True), ("stop", False), ("length", False)}  # all ways to end occur


def test_engine_accepts_list_of_adapters(engine, params):
    rng = np.random.default_rng(7)

    def drawn(rank, scale):
        fresh = lora.init(jax.random.key(0), _CONFIG, rank, scale=scale)
        return fresh.one(jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32), fresh.leaves))

    one, two = drawn(2, 0.5), drawn(1, 1.0)
    draw = functools.partial(engine, params, _PROMPTS, _KEYS(jax.random.key(2)), num_samples=2, max_new_tokens=21)
    draw = functools.partial(draw, stop_tokens=(5, 6))  # as above, so that programs are shared
    mixed, plain, alone = draw(adapters=[one, None, two]), draw(adapters=[None] * 3), draw(adapters=[one] * 3)
    for found, wanted in zip((*mixed[0], *mixed[1]), (*alone[0], *plain[1]), strict=True):
        np.testing.assert_array_equal(found.tokens_T, wanted.tokens_T)
        np.testing.assert_allclose(found.logprobs_T, wanted.logprobs_T, atol=1e-5)
    for n in (0, 2):
        assert [sample.tokens_T.tolist() for sample in mixed[n]] != [sample.tokens_T.tolist() for sample in plain[n]]


def test_list_of_adapters_is_checked(engine, params):
    draw = functools.partial(engine, params, _PROMPTS, _KEYS(jax.random.key(2)), num_samples=2, max_new_tokens=9)
    adapter = lora.init(jax.random.key(0), _CONFIG, 2)
    wider = lora.init(jax.random.key(0), dataclasses.replace(_CONFIG, hidden_size=16), 2)
    with pytest.raises(ValueError, match="3 prompts and 2 adapters"):
        draw(adapters=[adapter, None])
    with pytest.raises(ValueError, match=r"adapters of \w+ have the shapes .* give adapters of one model"):
        draw(adapters=[adapter, wider, None])
    with pytest.raises(ValueError, match="the adapter is batched, but a shared one is needed"):
        draw(adapters=[lora.stack([adapter, adapter]), None, None])


def test_requests_in_bucket_share_programs(engine, params, caplog):
    draw = functools.partial(engine, params, num_samples=3)
    keys_N = jax.random.split(jax.random.key(0), 4)

    def compiled(**request):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            draw(**request)
        found = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")]
        return [name for name in ("start", "advance") if any(f"({name})" in message for message in found)], len(found)

    assert compiled(prompts=_PROMPTS, keys_N=keys_N[:3], max_new_tokens=17)[0] == ["start", "advance"]
    assert compiled(prompts=[[1] * 16] * 3, keys_N=keys_N[1:], max_new_tokens=32, stop_strings=("ab",)) == ([], 0)
    assert compiled(prompts=[[2, 3]] * 4, keys_N=keys_N, max_new_tokens=20)[0] == []
    assert compiled(prompts=[[1] * 17] * 3, keys_N=keys_N[1:], max_new_tokens=17)[0] == ["start", "advance"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": [[1], [], [2]]}, "prompt 1 is empty"),
        ({"prompts": [[1], [2], [50]]}, "prompt 2 has token 50"),
        ({"prompts": [[1], [2]]}, "2 prompts and 3 keys"),
        ({"adapters": Adapter({"layers": jnp.zeros((2, 1, 1, 1))}, batched=True)}, "3 prompts and 2 adapters"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"stop_strings": ("",)}, "stop string is empty"),
    ],
)
def test_invalid_request_is_named(engine, params, changes, words):
    request = {"prompts": _PROMPTS, "keys_N": _KEYS(jax.random.key(0)), "num_samples": 1, "max_new_tokens": 2}
    with pytest.raises(ValueError, match=words):
        engine(params, **{**request, **changes})


def test_batch_dependent_dynamic_rope_is_refused(engine):
    settings = {**_CONFIG.to_dict(), "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "rope_scaling": None}
    config = LlamaConfig.from_dict({**settings, "max_position_embeddings": 31})
    with pytest.raises(ValueError, match="past 31 positions"):
        sampling.Engine(Llama(config), engine.tokenizer)(
            None, [[1]], jax.random.split(jax.random.key(0), 1), num_samples=1, max_new_tokens=2
        )
