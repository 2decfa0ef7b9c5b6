"""The README's commands exist, name files that exist, and are the ones that CI runs."""

import pathlib
import re
import subprocess

import jax
import pytest

from experiments.presets import tiny

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def test_the_quick_start_is_two_commands_of_one_line():
    assert len(BLOCKS) == 2
    assert all(block.count("\n") == 1 for block in BLOCKS)
    assert "experiments.train --preset=tiny --workdir=" in BLOCKS[0]
    assert "-m pytest" in BLOCKS[1]


@pytest.mark.parametrize("module", sorted(set(re.findall(r"-m (experiments\.\w+)", README))))
def test_every_command_named_exists(module):
    assert (ROOT / (module.replace(".", "/") + ".py")).is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_every_link_leads_somewhere(target):
    assert (ROOT / target).exists()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_examples_run(code, capsys):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_ci_runs_the_second_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    find = re.search(r"test_command=\$\((.*)\)", script)[1]
    done = subprocess.run(["bash", "-c", find], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == BLOCKS[1]


def test_the_settings_that_the_readme_states_are_those_of_the_preset():
    config = tiny.config()
    assert (config.inner_optimizer, config.inner_lr, config.lora_rank, config.gamma) == ("sgd", 0.2, 4, 0.1)
    assert (config.scorer_layers, config.scorer_width, config.clip_ratio) == (1, 32, 0.2)
    assert (config.generator_lr, config.solver_grpo_lr, config.temperature) == (3e-4, 1e-3, 1.0)
