"""A completions server with the API of vLLM that samples with a Llama and adapters read from PEFT files."""

import contextlib
import functools
import http.server
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np

from mass_jax.llama import lora, peft

SLOTS, RANK = 64, 32  # every text and adapter is padded to these, so that one program suffices


class Stub:
    """State of a server; tests change its attributes to make it fail.

    Attributes:
        params: base weights.
        applies_adapters: whether adapters have an effect.
        processed: whether log-probabilities are those of the tempered policy.
        max_tokens: samples are cut after this many tokens.
        largest_rank: adapters of larger ranks are refused.
        change: changes an answer before it is sent.
        refusals: statuses and values with which paths are refused.
        adapters: leaves of the loaded adapters by name.
        loaded: names and paths in the order of loading.
    """

    def __init__(self, model, params):
        self.model, self.params, self.largest_rank = model, params, RANK
        self.applies_adapters = self.processed = True
        self.max_tokens, self.change, self.refusals = SLOTS, lambda answer: answer, {}
        self.adapters, self.loaded, self.requests = {}, [], []
        zero = lora.init(jax.random.key(0), model.config, RANK)
        self._none = jax.tree.map(np.zeros_like, zero.leaves)

    def respond(self, path, body):
        """Returns the status and the value that answer a request."""
        if path in self.refusals:
            return self.refusals[path]
        if path == "/v1/models":
            cards = [{"id": "base", "parent": None}, *({"id": name, "parent": "base"} for name in self.adapters)]
            return 200, {"object": "list", "data": cards}
        if path == "/v1/load_lora_adapter":
            return self._load(body["lora_name"], body["lora_path"])
        if path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return 200, "Success"
        if path == "/v1/completions" and body["model"] in ("base", *self.adapters):
            self.requests.append(body)
            return 200, self.change({"choices": [self._sample(body, m) for m in range(body["n"])]})
        if path == "/v1/completions":
            return 404, {"error": {"message": f"The model `{body['model']}`\ndoes not exist."}}
        return 404, {"detail": "Not Found"}

    def _load(self, name, path):
        adapter = peft.load(path, self.model.config)
        rank = jax.tree.leaves(adapter.leaves)[0].shape[-1]
        if rank > self.largest_rank:
            return 500, {"error": {"message": f"LoRA rank {rank} is greater than max_lora_rank {self.largest_rank}."}}
        self.loaded.append((name, path))
        self.adapters[name] = self._filled(lora.folded(adapter).leaves)
        return 200, "Success"

    def _filled(self, leaves):
        """Returns leaves for all projections, of rank `RANK`."""

        def fill(path, zero):
            found = leaves
            for key in path:
                found = found.get(key.key) if found else None
            if found is None:
                return zero
            found = np.asarray(found)
            return np.pad(found, [(0, more - have) for have, more in zip(found.shape, zero.shape, strict=True)])

        return jax.tree_util.tree_map_with_path(fill, self._none)

    def _logprobs(self, name, tokens, temperature):
        """Returns log-probabilities [T, V] after each token."""
        leaves = self.adapters[name] if name in self.adapters and self.applies_adapters else self._none
        row = np.zeros((1, SLOTS), np.int32)
        row[0, : len(tokens)] = tokens
        logits = np.asarray(_logits(self.model, self.params, leaves, row))[0, : len(tokens)] / (temperature or 1)
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    def _sample(self, body, m):
        """Draws sample m."""
        rng, prompt, tokens, logprobs = np.random.default_rng(body["seed"] + m), body["prompt"], [], []
        temperature = body["temperature"]
        while len(tokens) < min(body["max_tokens"], self.max_tokens) and tokens[-1:] not in (
            [stop] for stop in body["stop_token_ids"]
        ):
            text = prompt + tokens
            last = self._logprobs(body["model"], text, temperature)[-1]
            token = int(np.argmax(last + (rng.gumbel(size=last.shape) if temperature else 0)))
            shown = last if self.processed else self._logprobs(body["model"], text, 1.0)[-1]
            tokens.append(token)
            logprobs.append(float(shown[token]))
        choice = {"index": m, "text": "", "token_ids": tokens, "logprobs": {"token_logprobs": logprobs}}
        if "prompt_logprobs" in body:
            scores = self._logprobs(body["model"], prompt, 1.0)
            entries = [{str(token): {"logprob": float(scores[t, token])}} for t, token in enumerate(prompt[1:])]
            choice["prompt_logprobs"] = [None, *entries]
        return choice | {"finish_reason": "stop" if tokens[-1] in body["stop_token_ids"] else "length"}


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, leaves, tokens_1T):
    return model.apply({"params": params, "lora": leaves}, jnp.asarray(tokens_1T))


@contextlib.contextmanager
def serving(stub):
    """Context in which a stub listens; gives the address of its API."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(*stub.respond(self.path, body))

        def do_GET(self):
            self.answer(*stub.respond(self.path, None))

        def answer(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client may stop reading
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
