"""Cases of the sampling benchmark, for mass_jax and for transformers and peft, and their timing."""

import functools
import importlib.metadata
import json
import os
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from experiments.benchmarks.sampling_report import save
from experiments.benchmarks.speed import bandwidth_share, bytes_per_step, interleave, read_bandwidth
from mass_jax import runtime, sampling
from mass_jax.llama import Llama, LlamaConfig, lora, losses, tokenizer, weights

_PROMPT = (
    "A farmer has 17 sheep and buys 25 more at the market. On the way home 4 of them run away. "
    "How many sheep does the farmer have now? Explain each step."
)
Cases = dict[str, dict[str, Callable[[], Any]]]


def run(
    model_path: pathlib.Path,
    out: pathlib.Path,
    machine: str,
    *,
    repeats: int,
    new: int,
    samples: int,
    rank: int,
    bandwidth: float = 0,
    stop: runtime.Stop | None = None,
) -> dict[str, Any]:
    """Measures the cases that are missing from sampling.json.

    Args:
        model_path: Hugging Face directory of a Llama.
        out: directory of the results.
        machine: name of the machine in the results.
        repeats: number of timed runs per case and side.
        new: number of generated tokens.
        samples: batch size of the cases with several samples.
        rank: rank of the LoRA adapters.
        bandwidth: memory bandwidth of the machine in bytes per second; 0 measures it.
        stop: polled after every case.

    Returns:
        Contents of sampling.json with ratios and shares of the memory bandwidth.

    Raises:
        ValueError: If `out` contains results of another measurement, or a damaged file.
    """
    config = LlamaConfig.from_directory(model_path)
    params = weights.load(model_path, config)
    prompt_T = np.asarray(tokenizer.load(model_path)(_PROMPT)["input_ids"], np.int32)
    adapter = lora.init(jax.random.key(0), config, rank)
    cases = _sampling_cases(config, params, adapter, prompt_T, new, samples)
    for name, functions in _torch_cases(model_path, prompt_T, new, samples, rank).items():
        cases.setdefault(name, {}).update(functions)
    for name, function in _gradient_cases(config, params, adapter, prompt_T, samples).items():
        cases.setdefault(name, {})["ours"] = function
    header = {
        "machine": machine,
        "new_tokens": new,
        "samples": samples,
        "adapter_rank": rank,
        "repeats": repeats,
        "prompt_tokens": len(prompt_T),
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", "torch", "transformers")},
    }
    result = _resume(out / "sampling.json", header)
    for number, (name, functions) in enumerate(cases.items(), 1):
        if name not in result["seconds"]:
            logging.info("case %d of %d: %s", number, len(cases), name)
            result["seconds"][name] = interleave(name, functions, repeats)
            save(result, out)
        if stop is not None:
            stop.poll()
    result["ratios"] = _ratios(result["seconds"])
    result["bandwidth"] = {"bytes_per_second": bandwidth or read_bandwidth(), "measured": not bandwidth}
    result["bandwidth_shares"] = _shares(result, config, params, adapter)
    return result


def _shares(result: dict[str, Any], config: LlamaConfig, params: Any, adapter: Any) -> dict[str, dict[str, Any]]:
    """Returns the share of the memory bandwidth by case and side, for the cases that generate; prefill counts."""
    new, samples = result["new_tokens"], result["samples"]
    read = functools.partial(bytes_per_step, config, params, prompt_tokens=result["prompt_tokens"], new=new)
    own = lora.stack([adapter] * samples)
    read_bytes = {
        ("1 sample", "ours"): read(None, prompts=1, samples=1),
        (f"{samples} samples", "ours"): read(None, prompts=1, samples=samples),
        (f"{samples} tasks", "shared adapter"): read(adapter, prompts=samples, samples=1),
        (f"{samples} tasks", "own adapters"): read(own, prompts=samples, samples=1),
    }
    shares: dict[str, dict[str, Any]] = {}
    for (name, side), count in read_bytes.items():
        seconds = statistics.median(result["seconds"][name][side])
        share = bandwidth_share(seconds, count, new, result["bandwidth"]["bytes_per_second"])
        shares.setdefault(name, {})[side] = share | {"bytes_per_step": count}
    return shares


def _resume(file: pathlib.Path, header: dict[str, Any]) -> dict[str, Any]:
    """Returns the header with the finished cases of an earlier run of the same measurement."""
    if not file.exists():
        return header | {"seconds": {}}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        seconds = found["seconds"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is damaged; remove it, or give another --out") from None
    for name, value in header.items():
        if found.get(name) != value:
            raise ValueError(f"{file} was measured with {name} {found.get(name)}, not {value}: give another --out")
    return header | {"seconds": seconds}


def _sampling_cases(
    config: LlamaConfig, params: Any, adapter: Any, prompt_T: np.ndarray, new: int, samples: int
) -> Cases:
    model, unstacked = Llama(config), sampling.unstack(params)
    tasks = lora.stack([adapter] * samples)

    def sampler(prompts: int, each: int, adapters: Any) -> Callable[[], Any]:
        # Parameters are arguments, since as a closure they would become constants of the program.
        call = jax.jit(functools.partial(sampling.sample, model, num_samples=each, max_new_tokens=new))
        prompts_NP = jnp.broadcast_to(jnp.asarray(prompt_T), (prompts, len(prompt_T)))
        lengths_N = jnp.full((prompts,), len(prompt_T), jnp.int32)
        keys_N = jax.random.split(jax.random.key(1), prompts)
        return lambda: jax.block_until_ready(call(unstacked, prompts_NP, lengths_N, keys_N, adapters=adapters))

    return {
        "1 sample": {"ours": sampler(1, 1, None)},
        f"{samples} samples": {"ours": sampler(1, samples, None)},
        f"{samples} tasks": {
            "shared adapter": sampler(samples, 1, adapter),
            "own adapters": sampler(samples, 1, tasks),
        },
    }


def _gradient_cases(
    config: LlamaConfig, params: Any, adapter: Any, prompt_T: np.ndarray, rows: int
) -> dict[str, Callable[[], Any]]:
    model, tokens_BT = Llama(config), jnp.broadcast_to(jnp.asarray(prompt_T), (rows, len(prompt_T)))

    @jax.jit
    def loss(params, adapter):
        return jnp.mean(losses.token_nll(model, lora.variables(params, adapter), tokens_BT))

    gradient = jax.jit(jax.grad(loss, argnums=1))
    return {
        "forward": lambda: jax.block_until_ready(loss(params, adapter)),
        "LoRA gradient": lambda: jax.block_until_ready(gradient(params, adapter)),
    }


def _torch_cases(model_path: pathlib.Path, prompt_T: np.ndarray, new: int, samples: int, rank: int) -> Cases:
    import peft
    import torch
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(model_path).eval()
    prompt_BT = torch.tensor(prompt_T, dtype=torch.long)[None]
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 2}

    def generate(each: int) -> Any:
        with torch.no_grad():
            return model.generate(prompt_BT, num_return_sequences=each, attention_mask=prompt_BT >= 0, **settings)

    names = list(lora.TARGETS)
    settings_of = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    other = transformers.LlamaForCausalLM.from_pretrained(model_path)
    adapted = peft.get_peft_model(other, settings_of)
    rows_BT = prompt_BT.repeat(samples, 1)

    def forward() -> Any:
        with torch.no_grad():
            return adapted(rows_BT, labels=rows_BT).loss

    def gradient() -> None:
        adapted.zero_grad()
        adapted(rows_BT, labels=rows_BT).loss.backward()

    return {
        "1 sample": {"torch": lambda: generate(1)},
        f"{samples} samples": {"torch": lambda: generate(samples)},
        "forward": {"torch": forward},
        "LoRA gradient": {"torch": gradient},
    }


def _ratios(seconds: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Divides the time of the second side by that of the first, per case; above 1, the first is faster."""
    ratios = {}
    for name, sides in seconds.items():
        first, second = (sides[side] for side in (("ours", "torch") if "ours" in sides else tuple(sides)))
        each = [b / a for a, b in zip(first, second, strict=True)]
        median = statistics.median(second) / statistics.median(first)
        ratios[name] = {"median": median, "least": min(each), "most": max(each)}
    return ratios
