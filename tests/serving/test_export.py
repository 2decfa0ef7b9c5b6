"""Exports of generators and adapters: transformers and peft load them and compute our logits."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from mass_jax.errors import UserError
from mass_jax.llama import Llama, lora
from mass_jax.llama.loading import load, model_directory
from mass_jax.method.models import Solver, Weights
from mass_jax.serving import export
from tests.commands import in_process

# Raised by peft about transformers.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TINY = model_directory("tiny")
TOKENS = np.random.default_rng(0).integers(3, 30, (2, 9))
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def tiny():
    return load("tiny")


def drawn(config, seed, rank):
    """An adapter with nonzero B, drawn in NumPy to avoid compilation."""
    shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), config, rank))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.05 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module", params=["full", "lora"])
def generator(request, tiny):
    """A solver and its weights: trained in full, or as an adapter."""
    solver = Solver(tiny.model, request.param)
    if request.param == "full":
        return solver, Weights({}, jax.tree.map(lambda leaf: leaf * 1.01, tiny.params))
    return solver, Weights(tiny.params, drawn(tiny.model.config, 1, 3).leaves)


@functools.partial(jax.jit, static_argnums=0)
def apply(model, variables, tokens_BT):
    return model.apply(variables, tokens_BT)


def our_logits(solver, values, inner):
    variables = lora.variables(solver.params(values), solver.adapter(values, inner))
    return np.asarray(apply(Llama(solver.config), variables, jnp.asarray(TOKENS, jnp.int32)))


def their_logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


def test_merged_export_matches_transformers(generator, tmp_path):
    solver, values = generator
    inner = drawn(solver.config, 2, 2) if solver.generator == "lora" else None
    out = tmp_path / "model"
    export.write_merged(out, solver, values, TINY, inner)
    assert {file.name for file in out.iterdir()} >= FILES
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    np.testing.assert_allclose(their_logits(theirs), our_logits(solver, values, inner), atol=1e-4)
    text = "solve 4 kabo 3 ="
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer(text)["input_ids"] == load("tiny").tokenizer(text)["input_ids"]


@pytest.mark.parametrize("with_event", [False, True])
def test_adapter_export_matches_peft(generator, tmp_path, with_event):
    solver, values = generator
    inner = drawn(solver.config, 2, 2) if with_event else None
    out = tmp_path / "adapter"
    write = functools.partial(export.write_adapter, out, solver, values, TINY, inner, trained=True)
    if solver.generator == "full" and inner is None:
        with pytest.raises(UserError, match="trained in full and has no adapter; give --format=merged"):
            write()
        assert list(tmp_path.iterdir()) == []
        return
    write()
    base = out / "base" if solver.generator == "full" else TINY
    assert (out / "base").exists() == (solver.generator == "full")
    peft = pytest.importorskip("peft")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(loaded, out)
    wanted = our_logits(solver, values, inner)
    np.testing.assert_allclose(their_logits(model), wanted, atol=1e-4)
    if with_event:
        assert np.abs(wanted - our_logits(solver, values, None)).max() > 1e-2


def test_export_overwrites_nothing(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "weights").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("kept", "link"):
        with pytest.raises(UserError, match=r"exists; give a new directory"), export.new_directory(tmp_path / name):
            raise AssertionError("not reached")
    with pytest.raises(ZeroDivisionError), export.new_directory(tmp_path / "failed"):
        raise ZeroDivisionError
    (tmp_path / "empty").mkdir()
    with export.new_directory(tmp_path / "empty") as directory:
        (directory / "new").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "kept", "link"]
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["new"]


def test_export_fills_current_directory(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with export.new_directory(pathlib.Path()) as directory:
        (directory / "new").touch()
        (directory / "base").mkdir()
    assert sorted(path.name for path in pathlib.Path().iterdir()) == ["base", "new"]
    assert list(tmp_path.iterdir()) == [here]


def test_copy_tokenizer_copies_present_files(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for directory in (source, target):
        directory.mkdir()
    present = ["chat_template.jinja", "generation_config.json", "tokenizer.json"]
    for name in [*present, "model.safetensors"]:
        (source / name).write_text(name)
    export.copy_tokenizer(source, target)
    assert sorted((file.name, file.read_text()) for file in target.iterdir()) == [(name, name) for name in present]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=tiny"], "--out is missing"),
        (["--out={new}"], "give either --workdir=DIR of a training run, or --model=NAME"),
        (["--model=tiny", "--out={here}"], "exists; give a new directory"),
        (["--model=tiny", "--out={new}", "--event=1"], "--log is missing; give the event log, or --workdir"),
        (["--model=tiny", "--out={new}", "--format=gguf"], "should be one of <merged|peft>"),
        (["--model=tiny", "--out={new}", "--format=peft"], "the generator is trained in full and has no adapter"),
    ],
)
def test_export_reports_errors_in_one_line(tmp_path, arguments, message):
    (tmp_path / "file").touch()
    done = in_process("export", *(argument.format(new=tmp_path / "new", here=tmp_path) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr
