"""The planner on this machine's device; TPUs need their compiler, and minutes (see docs/results/plan)."""

import dataclasses
import json
import subprocess
import sys

import jax
import pytest

from experiments.planning import measure, page, shapes
from experiments.planning.phases import Iteration, bytes_on_chip
from experiments.presets import llama31_8b_gold, llama31_8b_verifier, llama31_70b_verifier
from mass_jax.config import Config
from mass_jax.runtime import make_mesh
from mass_jax.runtime.chips import CHIPS, GIB, devices_of

HEADER = {"preset": "p", "topology": "v5e:4x4", "num_slices": 1, "mesh": "data:1", "model": "a/b", "tasks": 1, "m": 2}
HEADER |= {"k": 1, "tokens": 8, "K": 2, "rank": 4, "dtype": "float32"}
HELD = {"weights": 2 * GIB, "optimizer": GIB, "scorer": 0, "caches": 0, "hbm": 16 * GIB}


def plan(*flags):
    command = [sys.executable, "-m", "experiments.plan", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_a_phase_is_compiled_and_a_directory_holds_one_plan(tmp_path):
    done = plan("--preset=tiny", "--phases=score", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "plan.json").read_text())
    (row,) = found["rows"]
    assert found["topology"] == "local"
    assert row["phase"] == "score"
    assert row["temporaries"] > 0
    assert row["total"] > row["weights"] + row["optimizer"] > 0
    assert "| score |" in done.stdout
    other = plan("--preset=tiny", "--phases=score", "--num_examples=6", f"--out={tmp_path}")
    assert other.returncode == 2
    assert "is a plan with m=12, not 6; give another --out" in other.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v9:4"], "--topology='v9:4' is unknown; write local, or v4"),
        (["--phases=scor"], "did you mean 'score'?"),
        (["--mesh=data:3"], "takes 3 devices"),
    ],
)
def test_what_a_user_mistypes_costs_one_line(flags, message, tmp_path):
    done = plan(*flags, f"--out={tmp_path}")
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("module", [llama31_8b_verifier, llama31_8b_gold, llama31_70b_verifier])
def test_published_settings_lie_on_their_mesh_in_equal_parts(module):
    """Shapes only: no weight is made."""
    config = module.config()
    iteration = Iteration(config, shapes.shape_of(config.model), make_mesh("fsdp:2,tensor:4"))
    state, base = iteration.state()
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(base))
    assert bytes_on_chip(base) == pytest.approx(whole / 8, rel=1e-3)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(base)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.policy)} == {"float32"}
    assert iteration.batch().examples.tokens_BT.shape == (1, 12, 2048)


def test_a_refusal_keeps_the_compilers_words_and_says_what_to_change():
    text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 138.80G of 15.75G hbm. Exceeded by ..."
    assert measure.refused(text, HELD) == {"temporaries": None, "total": int(138.8 * GIB)}
    newer = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (34.14G) exceeds available HBM (15.75G). HLO module: jit_gradients."
    )
    needed = int(34.14 * GIB)
    assert measure.refused(newer, HELD) == {"temporaries": needed, "total": needed + 3 * GIB}
    assert measure.refused("INTERNAL: a bug", HELD) is None
    row = HELD | {"phase": "ReverseUnroll", "fits": False, "refused": text} | measure.refused(text, HELD)
    row["advice"] = measure.advice(row)
    shown = page.table(HEADER, [row])
    assert "| ReverseUnroll | 2.00 | 1.00 | 0.00 |  |  | 138.80 | 16.00 | **no** | none |" in shown
    assert "--adjoint=weighted" in shown


def test_plans_of_the_same_work_are_put_side_by_side(tmp_path):
    work = {
        "adjoint": "weighted",
        "rows": [HELD | {"phase": "score", "temporaries": GIB, "total": 4 * GIB, "refused": None}],
    }
    for name, chips in (("b", 16), ("a", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(
            json.dumps(HEADER | work | {"chips": chips, "topology": f"v5e:{chips}"})
        )
    flags = [f"--join={tmp_path / 'b'},{tmp_path / 'a'}", f"--out={tmp_path / 'both'}"]
    done = plan(*flags, "--phases=score")
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[1] for line in done.stdout.splitlines()[4:6]] == ["8", "16"]
    assert (tmp_path / "both" / "chips.png").stat().st_size > 1000
    done = plan(*flags)
    assert "has no phase 'adapt + meta-gradient'" in done.stderr


def test_the_roofline_grows_with_the_work():
    shape = shapes.shape_of("meta-llama/Llama-3.1-8B-Instruct")
    config, mesh = llama31_8b_verifier.config(), make_mesh("fsdp:2,tensor:4")
    for phase in ("prefill", "prefill + decode", measure.META_GRADIENT, "outer update"):
        one, two = (
            measure.roofline(phase, Iteration(dataclasses.replace(config, tasks_per_step=n), shape, mesh), CHIPS["v5e"])
            for n in (1, 2)
        )
        assert 0 < one <= two
    assert measure.roofline("score", Iteration(Config(), shape, mesh), CHIPS["v5e"]) is None


def test_local_devices_are_these():
    assert devices_of("local") == list(jax.devices())
