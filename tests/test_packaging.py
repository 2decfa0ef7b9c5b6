"""Packaging: dependencies by purpose, errors for missing extras, lazy imports, and the files of the wheel."""

import ast
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

import mass_jax
from mass_jax import lazy

ROOT = pathlib.Path(__file__).parent.parent
CORE = {"jax", "optax", "numpy", "chex"}
BUNDLED = {"markupsafe": "jinja2", "latex2sympy2_extended": "math_verify", "pyarrow": "datasets"}
INSTALL_TRAIN = ' is not installed; run: pip install "mass_jax[train]"'
INSTALL_MATH = ' is not installed; run: pip install "mass_jax[math]"'
PACKAGES = sorted({path.parent for path in (ROOT / "mass_jax").glob("*/*.py")})


def load_setup():
    """Imports setup.py, which calls `setup` only as a program."""
    spec = importlib.util.spec_from_file_location("mass_jax_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_of(requirements):
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


def run_without(blocked, code):
    """Runs code in a process in which the given packages cannot be imported."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)!r}))\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", hide + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_core_needs_four_packages():
    assert names_of(load_setup().requirements("core")) == CORE


def test_optional_packages_agree_with_setup():
    setup = load_setup()
    for distribution, extra in lazy.OPTIONAL.values():
        assert distribution in names_of(setup.requirements(extra)), distribution
    for extra in ("train", "math", "plan", "smollm2", "reasoning-gym", "serve"):
        declared = {distribution for distribution, its_extra in lazy.OPTIONAL.values() if its_extra == extra}
        assert names_of(setup.requirements(extra)) == declared


def test_names_of_extras_need_no_normalization():
    # pip before 23.3 ignores an extra whose name has an underscore, with a warning only.
    for _, _, extra in load_setup().DEPENDENCIES:
        assert re.fullmatch(r"[a-z0-9-]+", extra), extra


def test_version_is_in_one_place():
    assert load_setup().version() == mass_jax.__version__


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_requires_what_it_imports(package):
    required = set(CORE)
    for init in package.rglob("__init__.py"):
        calls = re.findall(r"lazy\.require\(__name__, ([^)]*)\)", init.read_text(encoding="utf-8"))
        required |= {name for call in calls for name in re.findall(r'"(\w+)"', call)}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"mass_jax"}
            assert {BUNDLED.get(top, top) for top in tops} <= required, path


@pytest.mark.smoke
def test_import_is_lazy():
    code = "import mass_jax; print(sorted({'jax', 'numpy', 'flax', 'absl', 'optax'} & sys.modules.keys()))"
    done = run_without((), code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.smoke
def test_metagrad_needs_core_only():
    code = (
        "import jax, jax.numpy as jnp, optax\n"
        "from mass_jax import metagrad as mg\n"
        "def losses(params, batch): return (params * batch) ** 2\n"
        "outer = lambda params, batch: losses(params, batch).mean()\n"
        "result = mg.meta_gradient(mg.WeightedLoss(losses), outer, jnp.float32(1), jnp.ones(3), jnp.arange(3.0),\n"
        "    jnp.ones(2), optimizer=optax.sgd(0.1), num_steps=2, adjoint=mg.WeightedMixedMode())\n"
        "print(result.meta.shape)\n"
        "import mass_jax\n"
        "print(dir(mass_jax))\n"
    )
    done = run_without(lazy.OPTIONAL.keys() - {"absl", "scipy"}, code)  # optax and jax need these
    assert done.stdout == "(3,)\n['Config', '__version__', 'config', 'errors', 'metagrad']\n", done.stderr


@pytest.mark.parametrize(
    ("package", "code", "message"),
    [
        ("flax", "import mass_jax.llama", "mass_jax.llama needs flax, which" + INSTALL_TRAIN),
        ("re2", "import mass_jax as mass; mass.llama.load", "mass_jax.llama needs google-re2, which"),
        ("safetensors", "from mass_jax import sampling; sampling.Engine", "mass_jax.llama needs safetensors, which"),
        ("orbax", "from mass_jax.runtime.jsonl import scan", "mass_jax.runtime needs orbax-checkpoint, which"),
        ("jinja2", "import mass_jax.audit.log_page", "mass_jax.render needs jinja2, which"),
        (
            "reasoning_gym",
            "import mass_jax.tasks.reasoning",
            'needs reasoning-gym, which is not installed; run: pip install "mass_jax[reasoning-gym]"',
        ),
        (
            "starlette",
            "import mass_jax.serving.web",
            'needs starlette, which is not installed; run: pip install "mass_jax[serve]"',
        ),
        ("sympy", "import mass_jax.tasks.math", "mass_jax.tasks.math needs sympy, which" + INSTALL_MATH),
    ],
    ids=lambda value: value if value in lazy.OPTIONAL else "",
)
def test_missing_package_names_its_extra(package, code, message):
    done = run_without([package], code)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mass_jax.lazy.MissingExtraError: mass_jax.")
    assert message in last


@pytest.mark.parametrize("module", ["train", "solve", "audit"])
def test_command_without_extra_prints_one_line(module):
    code = f"import runpy; runpy.run_module('experiments.{module}', run_name='__main__')"
    done = run_without(lazy.OPTIONAL, code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: experiments needs absl-py, which{INSTALL_TRAIN}\n"


def test_math_task_without_extra_prints_one_line(tmp_path):
    code = (
        f"sys.argv = ['evaluate', '--task=math', '--methods=base', '--workdir={tmp_path}/run']\n"
        "import runpy; runpy.run_module('experiments.evaluate', run_name='__main__')"
    )
    done = run_without(["datasets", "math_verify", "sympy"], code)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == "error: mass_jax.tasks.math needs datasets, which" + INSTALL_MATH
    assert "Traceback" not in done.stderr


def test_wheel_contains_every_data_file():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    patterns = ast.literal_eval(re.search(r'package_data=\{"mass_jax": (\[.*?\])\}', text)[1])
    package = ROOT / "mass_jax"
    matched = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    ignored = (".py", ".pyc")
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in ignored}
    assert data - matched == set()
    assert package / "py.typed" in matched
