"""Path flags: every flag whose value is a path expands `~`."""

import ast
import pwd

import pytest
from absl import flags

from experiments import settings
from experiments.path_flags import DEFINE_path, DEFINE_path_list
from tests.commands import ROOT, fresh_flags

PATH_NAMES = {
    *("workdir", "out", "input", "log", "model", "policy", "suite", "real", "join", "wheel", "train_data", "eval_data"),
    *("output", "directory", "path", "file", "data"),
}


def defined_flags():
    """Yields (file, function, flag, help text) of every flag definition in the sources of the commands."""
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            function = ast.unparse(node.func).rpartition(".")[2]
            if function.startswith("DEFINE_"):
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                yield path.name, function, texts[0], texts[-1]


def is_path(name, help_text):
    first = help_text.split(".")[0].lower()
    return name in PATH_NAMES or first.startswith(("directory", "jsonl file", "file", "path", "a hugging face llama"))


def test_paths_are_path_flags():
    defined = [(file, name) for file, function, name, text in defined_flags() if is_path(name, text)]
    assert len(defined) > 20
    assert {name for _, name in defined} >= {"workdir", "out", "log", "model", "policy", "suite", "join", "wheel"}
    wrong = [
        (file, name)
        for file, function, name, text in defined_flags()
        if is_path(name, text) and function not in ("DEFINE_path", "DEFINE_path_list")
    ]
    assert wrong == []


def test_config_paths_are_path_flags(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    with fresh_flags():
        settings.define()
        flags.FLAGS(["x", "--model=~/m", "--train_data=~/t.jsonl", "--eval_data=~"])
        found = [flags.FLAGS[name].value for name in ("model", "train_data", "eval_data")]
    assert found == ["/home/someone/m", "/home/someone/t.jsonl", "/home/someone"]


@pytest.fixture
def values(monkeypatch):
    """Flags that are independent of the global ones."""
    monkeypatch.setenv("HOME", "/home/someone")
    values = flags.FlagValues()
    DEFINE_path("out", None, "Where.", flag_values=values)
    flags.DEFINE_integer("n", 1, "Another.", flag_values=values)
    return values


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~", "/home/someone"),
        ("~/a b/ü", "/home/someone/a b/ü"),
        ("~root/x", f"{pwd.getpwnam('root').pw_dir}/x"),
        ("./~", "./~"),
        ("a/~/b", "a/~/b"),
        ("tiny", "tiny"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("/x/[a]/*\\", "/x/[a]/*\\"),
    ],
)
def test_path_flag_expands_home(values, given, expected):
    values(["program", f"--out={given}"])
    assert values["out"].value == expected
    values.unparse_flags()
    values(["program", "--out", given])
    assert values.out == expected


def test_path_flag_is_none_by_default(values):
    values(["program"])
    assert values.out is None


@pytest.mark.parametrize(("given", "message"), [("", "an empty path"), ("~nobody-here/x", "names no home directory")])
def test_path_flag_rejects_invalid_path(values, given, message):
    with pytest.raises(flags.IllegalFlagValueError, match=message):
        values(["program", f"--out={given}"])


def test_path_list_flag_expands_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    values = flags.FlagValues()
    flags.DEFINE_integer("n", 1, "Another.", flag_values=values)
    DEFINE_path_list("join", "Directories.", flag_values=values)
    values(["program", "--join=~/a,b,~"])
    assert values.join == ["/home/someone/a", "b", "/home/someone"]
