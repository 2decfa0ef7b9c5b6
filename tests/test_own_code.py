"""Objects of the user's own code are found by name, or refused in one line."""

import sys

import pytest

from mass_jax import own_code, sampling
from mass_jax.errors import UserError


def test_find_imports_from_module_and_file(tmp_path):
    assert own_code.find("mass_jax.sampling:Engine", "--sampler") is sampling.Engine
    file = tmp_path / "mine.py"
    file.write_text("import dataclasses\n\n@dataclasses.dataclass\nclass Mine:\n    x: 'int' = 3\n")
    found = own_code.find(f"{file}:Mine", "--sampler")
    assert found().x == 3
    assert own_code.find(f"{file}:Mine", "--sampler") is found
    assert "mine" not in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vllm", "--sampler=vllm does not name an object; write module:name or file.py:name"),
        (":name", "does not name an object"),
        ("no_such_module:Name", r"no_such_module cannot be imported \(No module named 'no_such_module'\)"),
        (".relative:Name", "does not name an object"),
        ("absent.py:Name", r"absent\.py is not a file; give the path of a Python file"),
        ("broken.py:Name", r"broken\.py cannot be imported \(.*line 1\)"),
        ("needs.py:Name", r"needs\.py cannot be imported \(No module named 'no_such_module'\)"),
        ("mass_jax.sampling:Engin", "mass_jax.sampling has no 'Engin'; did you mean 'Engine'?"),
    ],
)
def test_find_refuses_in_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def\n")
    (tmp_path / "needs.py").write_text("import no_such_module\n")
    before = set(sys.modules)
    with pytest.raises(UserError, match=message) as caught:
        own_code.find(text, "--sampler")
    assert "\n" not in str(caught.value)
    assert not [name for name in set(sys.modules) - before if name.startswith("own_code")]
