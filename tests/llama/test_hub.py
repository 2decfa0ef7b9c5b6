"""Hub ids, read from the hub client's cache without network access."""

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


def write_cache(home: pathlib.Path) -> None:
    """Writes the files of the tiny model to a hub cache, under the id someone/small."""
    repository, commit = home / "hub" / "models--someone--small", "0123456789abcdef0123456789abcdef01234567"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for file in TINY.iterdir():
        (snapshot / file.name).symlink_to(file)


def test_hub_id_loads_from_cache(tmp_path):
    write_cache(tmp_path)
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(tokenizer.load(TINY))


def test_directory_resolves_to_itself():
    assert hub.model_directory(TINY) == TINY
    assert LlamaConfig.from_directory(TINY).num_hidden_layers
    assert weights.load(TINY, LlamaConfig.from_directory(TINY))


@pytest.mark.parametrize("model", ["no such directory", "a/b/c"])
def test_unknown_model_is_named(model):
    with pytest.raises(FileNotFoundError, match=f"--model: model '{model}' is not a directory") as caught:
        of_flag(model)
    assert "\n" not in str(caught.value)
