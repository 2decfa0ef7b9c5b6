"""Hub ids, read from the hub client's cache without network access, and from a local hub."""

import pathlib
import subprocess
import sys

import pytest

from mass_jax.llama import LlamaConfig, hub, tokenizer, weights
from mass_jax.training.components import model_directory as of_flag
from tests.hub_server import ACCEPTED, INVALID, local_hub

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


@pytest.fixture
def served(tmp_path, monkeypatch):
    with local_hub(tmp_path, monkeypatch) as root:
        for place in ("small/main", "small/v1", "gated/main"):
            directory = root / "models" / "org" / place
            directory.mkdir(parents=True)
            (directory / "config.json").write_text(f'{{"place": "{place}"}}')
        yield root


def test_hub_id_with_revision(served):
    assert "small/main" in (hub.model_directory("org/small") / "config.json").read_text()
    assert "small/v1" in (hub.model_directory("org/small@v1") / "config.json").read_text()


GATED = r"org/gated is gated; accept its license at http://\S+/org/gated and set HF_TOKEN to a token of that account"


@pytest.mark.parametrize(
    ("model", "token", "message"),
    [
        ("org/gated", "", GATED),
        ("org/gated", "hf_other", GATED),
        ("org/none", "hf_other", r"the hub has no model org/none, or it is private; check the id, or, .* set HF_TOKEN"),
        ("org/none", "", r"the hub has no model org/none, or it is private; check the id, or, .* set HF_TOKEN"),
        ("org/small@v9", "", r"org/small has no such revision; give a branch, tag or commit listed at http"),
        ("org/small", INVALID, r"the hub refuses access \(401\); set HF_TOKEN to a valid token"),
        ("org/small", "hf_\xfc", r"HF_TOKEN has characters that a request cannot contain; set it again"),
        ("a b/c", "", r"Repo id must use .*; check the connection and the id, or give a local path"),
    ],
)
def test_refusals_name_the_fix(served, monkeypatch, model, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(FileNotFoundError, match=f"--model: model '{model}' is not a directory, .*{message}") as caught:
        of_flag(model)
    assert "\n" not in str(caught.value)
    assert not token or token not in str(caught.value)


def test_accepted_token_loads_gated_model(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", ACCEPTED)
    assert (hub.model_directory("org/gated") / "config.json").exists()
