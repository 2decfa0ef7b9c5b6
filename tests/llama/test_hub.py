"""A hub id is found in the hub client's own cache; no network is asked."""

import pathlib
import subprocess
import sys

import pytest

from mass_jax.llama import LlamaConfig, hub, tokenizer, weights
from mass_jax.training.components import model_directory as of_flag

TINY = of_flag("tiny")
CODE = """
from mass_jax.llama import LlamaConfig, hub, tokenizer, weights
path = hub.model_directory("someone/small")
weights.load(path, LlamaConfig.from_directory(path))
print(len(tokenizer.load(path)))
"""


def cached(home: pathlib.Path) -> None:
    """The files of the tiny model as the hub's client keeps those of someone/small."""
    repository, commit = home / "hub" / "models--someone--small", "0123456789abcdef0123456789abcdef01234567"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for file in TINY.iterdir():
        (snapshot / file.name).symlink_to(file)


def test_a_hub_id_is_read_from_the_hubs_cache(tmp_path):
    cached(tmp_path)
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(tokenizer.load(TINY))


def test_a_directory_is_itself():
    assert hub.model_directory(TINY) == TINY
    assert LlamaConfig.from_directory(TINY).num_hidden_layers
    assert weights.load(TINY, LlamaConfig.from_directory(TINY))


@pytest.mark.parametrize("model", ["no such directory", "a/b/c"])
def test_what_is_neither_is_named_in_one_line(model):
    with pytest.raises(FileNotFoundError, match=f"--model: model '{model}' is no directory") as caught:
        of_flag(model)
    assert "\n" not in str(caught.value)
