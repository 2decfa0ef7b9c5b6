"""The inner loop and the scorer's trunk of a `Config`, built without loading any weights."""

import dataclasses

import jax
import optax

from mass_jax.config import Config
from mass_jax.llama import Llama, LlamaConfig
from mass_jax.method import adapt, score
from mass_jax.method.adjoints import make_adjoint, make_store
from mass_jax.method.models import Solver
from mass_jax.training.inner_optimizer import fixed_optimizer, learned_inner


def models(
    config: Config, llama_config: LlamaConfig, inner_optimizer: optax.GradientTransformation | None = None
) -> tuple[adapt.LoraLoop, Llama]:
    """Returns the inner loop with the solver, and the scorer's trunk, without loading any weights.

    For --inner_eps_root=auto, whose value needs weights, the loop has a placeholder; see `with_eps_root`.
    """
    given = config.given_eps_root
    eps_root = adapt.DEFAULT_EPS_ROOT if given is None else given
    solver = Solver(
        Llama(llama_config),
        "lora" if config.generator == "lora" else "full",
        inner_blocks=_last_blocks("lora_blocks", config.lora_blocks, llama_config),
        generator_blocks=_last_blocks("generator_lora_blocks", config.generator_lora_blocks, llama_config),
        max_target_tokens=config.max_target_tokens,
    )
    loop = adapt.LoraLoop(
        solver,
        inner_optimizer or fixed_optimizer(config, eps_root),
        config.inner_steps,
        config.lora_rank,
        config.lora_alpha / config.lora_rank,
        config.lora_targets,
        make_adjoint(*config.parsed_adjoint, config.adjoint_remat, make_store(*config.parsed_store)),
        eps_root,
        config.example_chunk,
        config.product_chunk,
        config.tasks_at_a_time,
        learned_inner(config, eps_root),
    )
    trunk = score.scorer_config(llama_config, config.scorer_layers, config.scorer_width)
    return loop, Llama(dataclasses.replace(trunk, dtype=None))


def execution(config: Config, llama_config: LlamaConfig) -> LlamaConfig:
    """Returns an architecture with the configured execution: rematerialization, chunks, unrolling and arithmetic."""
    return dataclasses.replace(
        llama_config,
        remat=config.remat,
        loss_chunk=config.loss_chunk,
        attention="xla" if config.attention == "full" else config.attention,
        attention_block=config.attention_block,
        unroll=config.scan_unroll,
        half_products=config.half_products,
        half_adapters=config.adapter_product_dtype == "bfloat16",
        dtype=None if config.compute_dtype == "auto" else config.compute_dtype,
    )


def check_attention(config: Config, mesh: jax.sharding.Mesh) -> None:
    """Raises a ValueError if --attention=kernel does not run on the devices of a mesh.

    >>> check_attention(Config(attention="kernel"), jax.make_mesh((1,), ("x",), devices=jax.devices("cpu")[:1]))
    Traceback (most recent call last):
    ValueError: --attention=kernel needs a GPU or a TPU, and this is a CPU; use --attention=auto
    """
    if config.attention != "kernel":
        return
    if mesh.devices.flat[0].platform == "cpu":
        raise ValueError("--attention=kernel needs a GPU or a TPU, and this is a CPU; use --attention=auto")
    if mesh.size > 1:
        raise ValueError(f"--attention=kernel runs on 1 device, and --mesh has {mesh.size}; use --attention=auto")


def _last_blocks(flag: str, requested: int, llama_config: LlamaConfig) -> int:
    """Returns how many last blocks carry an adapter, where 0 stands for all."""
    blocks = llama_config.num_hidden_layers
    if requested > blocks:
        raise ValueError(f"--{flag}={requested} is more than the model's {blocks}; give at most {blocks}, or 0: all")
    return requested % blocks
