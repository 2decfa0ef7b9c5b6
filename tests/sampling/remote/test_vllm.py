"""Sampling from a server: log-probabilities, random seeds, adapters, the start-up probe, and failures."""

import os
import socket
import threading

import jax
import numpy as np
import pytest

from mass_jax import llama, sampling
from mass_jax.errors import UserError
from mass_jax.llama import lora
from mass_jax.sampling.remote.vllm import Server, Vllm
from tests.sampling.remote.agreement import PROMPTS, draw, random_adapters, scored
from tests.sampling.remote.stub import Stub, serving


@pytest.fixture(scope="module")
def loaded():
    return llama.load("tiny")


@pytest.fixture(scope="module")
def server(loaded):
    """A stub and its address."""
    stub = Stub(loaded.model, loaded.params)
    with serving(stub) as url:
        yield stub, url


@pytest.fixture
def sampler(loaded, server, monkeypatch):
    """A stub, and a new sampler from it; changes of the stub's attributes are undone."""
    stub, url = server
    for name in ("params", "applies_adapters", "processed", "max_tokens", "change", "largest_rank", "refusals"):
        monkeypatch.setattr(stub, name, getattr(stub, name))
    return stub, Vllm(loaded.model, loaded.tokenizer, Server(url, timeout=60.0, tolerance=0.01))


@pytest.fixture(scope="module")
def batched(loaded):
    """Adapters of the prompts, of rank 3, with an effect."""
    return random_adapters(loaded.model.config, 2, 3, ("q_proj", "up_proj"))


def test_log_probabilities_are_those_of_the_tempered_adapted_model(loaded, sampler, batched):
    stub, vllm = sampler
    shared = lora.split(batched)[1]
    for adapters, ones in ((None, (None, None)), (shared, (shared, shared)), (batched, lora.split(batched))):
        rows = draw(vllm, loaded.params, adapters=adapters, settings=sampling.Settings(temperature=0.7))
        for prompt, adapter, row in zip(PROMPTS, ones, rows, strict=True):
            for one in row:
                np.testing.assert_allclose(one.logprobs_T, scored(loaded, prompt, one, adapter, 0.7), atol=1e-4)
                assert one.finish == ("stop" if one.tokens_T[-1] == 2 else "length")
    greedy = draw(vllm, loaded.params, settings=sampling.Settings(temperature=0.0))
    assert greedy[0][0].tokens_T.tolist() == greedy[0][1].tokens_T.tolist()
    assert stub.requests[-1]["n"] == 1  # vLLM refuses several greedy samples


def test_sample_depends_on_its_own_prompt_and_key(loaded, sampler):
    _, vllm = sampler
    both, alone = draw(vllm, loaded.params), draw(vllm, loaded.params, PROMPTS[:1])
    assert [one.tokens_T.tolist() for one in both[0]] == [one.tokens_T.tolist() for one in alone[0]]
    assert both[0][0].tokens_T.tolist() != both[0][1].tokens_T.tolist()
    assert both[0][0].text == loaded.tokenizer.decode(both[0][0].tokens_T, skip_special_tokens=True)


def test_adapters_travel_under_new_names_and_paths(loaded, sampler, batched):
    stub, vllm = sampler
    stub.loaded.clear()
    for _ in range(2):
        draw(vllm, loaded.params, adapters=batched)
    draw(Vllm(loaded.model, loaded.tokenizer, vllm.server), loaded.params, adapters=lora.split(batched)[0])
    names, paths = zip(*stub.loaded, strict=True)
    assert len(stub.loaded) == 1 + 2 + 2 + 1 + 1  # two start-up probes
    assert len({*names}) == len({*paths}) == len(stub.loaded)
    assert stub.adapters == {}
    assert not any(os.path.exists(path) for path in paths)


def test_parameters_must_stay(loaded, sampler):
    _, vllm = sampler
    vllm.update(loaded.params, 1)
    vllm.update(jax.tree.map(np.copy, loaded.params), 2)
    with pytest.raises(UserError, match=r"version 3 of the parameters differs .* use --generator=lora"):
        vllm.update(jax.tree.map(lambda leaf: leaf * np.float32(1.001), loaded.params), 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("applies_adapters", False, r"the server ignores adapters: .* differ from the model's by .* nats per token"),
        ("processed", False, r"at temperature 0.5 differ .*; start it with --logprobs-mode=processed_logprobs"),
        ("largest_rank", 4, r"HTTP 500: LoRA rank 8 .* 4\.\); raise the server's --max-lora-rank"),
        (
            "max_tokens",
            3,
            r"cut a sample after 3 of 16 tokens \(finish_reason 'length', no stop token\); start it "
            "with --generation-config=vllm and a larger --max-model-len",
        ),
        ("change", lambda answer: {}, r"answered in another form \(KeyError \"'choices'\"\); use a current vLLM"),
        ("change", lambda answer: {"choices": [{"index": 0, "token_ids": [10**30] * 16}]}, "answered in another form"),
        ("change", lambda answer: "x" * 10**7, r"answered more than \d+ bytes"),
    ],
    ids=["adapter ignored", "raw log-probabilities", "rank", "cut", "no choices", "hostile tokens", "oversized"],
)
def test_probe_refuses_in_one_line(loaded, sampler, name, value, message):
    stub, vllm = sampler
    setattr(stub, name, value)
    with pytest.raises(UserError, match=message) as caught:
        draw(vllm, loaded.params)
    assert "\n" not in str(caught.value)


# Messages of vLLM 0.32.0.
DISABLED = "Call to add_lora method failed: LoRA is not enabled. Use --enable-lora to enable LoRA."
MISSING = "Loading lora mass_jax-1 failed: No adapter found for /dev/shm/mass_jax-rank/mass_jax-1"
TOO_LONG = "This model's maximum context length is 32 tokens. However, your prompt contains at least 33 input tokens"
RAN_OUT = "The decoder prompt (length 40) is longer than the maximum model length of 32."
FULL = "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"


@pytest.mark.parametrize(
    ("path", "status", "value", "fix"),
    [
        ("load_lora_adapter", 500, {"error": {"message": DISABLED}}, "start the server with --enable-lora"),
        ("load_lora_adapter", 404, {"error": {"message": MISSING}}, "run the server on this machine .* -v /.*:/.*"),
        ("load_lora_adapter", 500, {"error": {"message": "[Errno 13] Permission denied"}}, "run the server on this .*"),
        ("load_lora_adapter", 404, {"detail": "Not Found"}, "start the server with VLLM_ALLOW_RUNTIME_LORA_U.*"),
        ("load_lora_adapter", 405, {"detail": "Method Not Allowed"}, ".* VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and .*"),
        ("load_lora_adapter", 500, {"error": {"message": "out of memory"}}, "read the server's log"),
        ("models", 401, {"error": "Unauthorized"}, "set VLLM_API_KEY to the server's key"),
        ("models", 404, {"detail": "Not Found"}, "give the address of a vLLM server's API"),
        ("models", 503, {}, "read the server's log"),
        ("completions", 401, {"error": "Unauthorized"}, "set VLLM_API_KEY to the server's key"),
        ("completions", 400, {"error": {"message": TOO_LONG}}, "raise the server's --max-model-len, or shorten the .*"),
        ("completions", 400, {"error": {"message": RAN_OUT}}, "raise the server's --max-model-len, or shorten the .*"),
        ("completions", 400, {"error": {"message": FULL}}, "raise the server's --max-model-len, or shorten the texts"),
        ("completions", 404, {"error": {"message": "The model `x` does not exist."}}, "read the server's log"),
    ],
)
def test_refusal_names_its_own_fix(loaded, sampler, path, status, value, fix):
    stub, vllm = sampler
    stub.refusals = {f"/v1/{path}": (status, value)}
    with pytest.raises(UserError, match=rf"refused /{path} \(HTTP {status}: [^;]*\); {fix}$") as caught:
        draw(vllm, loaded.params)
    assert "\n" not in str(caught.value)


def test_address_without_version_is_named(loaded, server):
    url = server[1].removesuffix("/v1")
    for address in (url, url + "/"):
        with pytest.raises(UserError, match=r"\(HTTP 404: Not Found\); end the address with /v1$"):
            Vllm(loaded.model, loaded.tokenizer, Server(address)).update(loaded.params, 1)


def test_probe_refuses_other_base_weights(loaded, sampler):
    stub, vllm = sampler
    stub.params = jax.tree.map(lambda leaf: leaf * np.float32(1.1), loaded.params)
    with pytest.raises(UserError, match=r"of a fixed text differ .* more than --sampler_tolerance=0.01; serve the"):
        draw(vllm, loaded.params)


def test_dead_or_silent_server_is_named_in_one_line(loaded):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts connections and never answers
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        silent = Vllm(loaded.model, loaded.tokenizer, Server(url, timeout=0.1))
        with pytest.raises(UserError, match=r"did not answer within 0.1 s; raise --sampler_timeout"):
            draw(silent, loaded.params)
    with pytest.raises(UserError, match=rf"--sampler_url={url} cannot be reached \(.*refused\); start the server"):
        draw(silent, loaded.params)


def test_slow_answer_ends_at_the_deadline(loaded):
    def drip(listener):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
            while not done.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        slow = Vllm(loaded.model, loaded.tokenizer, Server(f"http://127.0.0.1:{listener.getsockname()[1]}", 0.2))
        with pytest.raises(UserError, match="did not answer within"):
            slow.update(loaded.params, 1)
        done.set()
        thread.join()


def test_requests_that_a_server_cannot_fulfill_are_refused(loaded, sampler):
    _, vllm = sampler
    for options in ({"stop_strings": ("x",)}, {"settings": sampling.Settings(top_k=3)}):
        with pytest.raises(UserError, match="supports no stop strings and no truncation"):
            draw(vllm, loaded.params, **options)
    with pytest.raises(UserError, match=r"--sampler_url='localhost:8000' is not an address"):
        Vllm(loaded.model, loaded.tokenizer, Server("localhost:8000"))
