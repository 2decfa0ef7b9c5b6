"""Tests for experiments.plan on local devices; docs/results/plan holds plans for TPUs."""

import dataclasses
import json

import jax
import pytest

from experiments.plan import read_rows
from experiments.presets import llama31_8b_gold, llama31_8b_h100, llama31_8b_verifier, llama31_70b_verifier
from mass_jax.config import Config
from mass_jax.planning import measure, plan_page, shapes
from mass_jax.planning.chips import CHIPS, GIB, devices_of
from mass_jax.planning.phases import Iteration, bytes_on_chip
from mass_jax.runtime import make_mesh
from mass_jax.training import train
from tests.commands import in_process

HEADER = {"preset": "p", "topology": "v5e:4x4", "num_slices": 1, "mesh": "data:1", "model": "a/b", "tasks": 1, "m": 2}
HEADER |= {"k": 1, "tokens": 8, "K": 2, "rank": 4, "dtype": "float32"}
HELD = {"weights": 2 * GIB, "optimizer": GIB, "scorer": 0, "caches": 0, "hbm": 16 * GIB}


def plan(*flags):
    return in_process("plan", *flags)


def test_plan_compiles_phase_and_refuses_other_plan(tmp_path):
    done = plan("--preset=tiny", "--phases=score", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "plan.json").read_text())
    (row,) = found["rows"]
    assert found["topology"] == "local"
    assert row["phase"] == "score"
    assert row["temporaries"] > 0
    assert row["total"] > row["weights"] + row["optimizer"] > 0
    assert "| score |" in done.stdout
    assert "phase 1 of 1: compiling score" in done.stderr
    other = plan("--preset=tiny", "--phases=score", "--num_examples=6", f"--out={tmp_path}")
    assert other.returncode == 2
    assert "is a plan with m=12, not 6; give another --out" in other.stderr
    header = {name: value for name, value in found.items() if name != "rows"}
    wider = header | {"settings": header["settings"] | {"scorer_width": 64}}
    with pytest.raises(ValueError, match="is a plan with scorer_width=32, not 64; give another --out"):
        read_rows(tmp_path / "plan.json", wider)


def test_plan_refuses_damaged_file(tmp_path):
    (tmp_path / "plan.json").write_text('{"rows":')
    for flags in ([f"--out={tmp_path}"], [f"--join={tmp_path}", f"--out={tmp_path}"]):
        done = plan("--preset=tiny", "--phases=score", *flags)
        assert done.returncode == 2
        assert "plan.json is damaged; remove it" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v9:4"], "--topology='v9:4' is unknown; write local, or v4"),
        (["--phases=scor"], "did you mean 'score'?"),
        (["--mesh=data:3"], "takes 3 devices"),
    ],
)
def test_plan_refuses_mistyped_flags(flags, message, tmp_path):
    done = plan(*flags, f"--out={tmp_path}")
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("module", [llama31_8b_verifier, llama31_8b_gold, llama31_8b_h100, llama31_70b_verifier])
def test_presets_split_evenly_over_mesh(module):
    config = module.config()
    iteration = Iteration(config, shapes.shape_of(config.model), make_mesh("fsdp:2,tensor:4"))
    state, base = iteration.state()
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(base))
    assert bytes_on_chip(base) == pytest.approx(whole / 8, rel=1e-3)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(base)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.policy)} == {"float32"}
    assert iteration.batch().examples.tokens_BT.shape == (1, 12, 2048)


def test_plan_includes_program_of_training():
    """Also checks that it needs at least the memory of its parts."""
    small = {"lora_targets": ("q_proj",), "inner_steps": 1, "adjoint": "first_order"}
    config = Config(num_examples=2, num_attempts=2, tasks_per_step=8, **small)
    iteration = Iteration(config, shapes.shape_of(config.model), make_mesh("data:8"))
    both = {phase.name: phase for phase in measure.all_phases(iteration, ("outer update", "meta-step"))}
    assert both["meta-step"].function is train.meta_step_jit
    rows = {name: measure.measure(phase, iteration, None) for name, phase in both.items()}
    assert rows["meta-step"]["total"] > rows["outer update"]["total"]


def test_refused_phase_shows_message_and_advice():
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
    shown = plan_page.table(HEADER, [row])
    assert "| ReverseUnroll | 2.00 | 1.00 | 0.00 |  |  | 138.80 | 16.00 | **no** | unknown |" in shown
    assert "--adjoint=weighted" in shown


def test_table_explains_tpu7x_devices():
    assert "are for one of them" in plan_page.table(HEADER | {"topology": "tpu7x:2x2x1"}, [])
    assert "are for one of them" not in plan_page.table(HEADER, [])


def test_join_compares_plans_of_same_work(tmp_path):
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


def test_chips_figure_draws_refused_plans(tmp_path):
    refused = [{"topology": "v5e:2x4", "chips": 8, "mesh": "fsdp:8", "num_slices": 1, "phase": "ReverseUnroll"}]
    refused[0] |= {"temporaries": None, "total": 138 * GIB, "refused": "RESOURCE_EXHAUSTED"}
    assert "| v5e:2x4 | 8 | fsdp:8 |  | 138.00 |" in plan_page.chips_table(refused)
    plan_page.chips_figure(refused, tmp_path / "chips.png")
    assert (tmp_path / "chips.png").stat().st_size > 1000


def test_roofline_grows_with_problems():
    shape = shapes.shape_of("meta-llama/Llama-3.1-8B-Instruct")
    config, mesh = llama31_8b_verifier.config(), make_mesh("fsdp:2,tensor:4")
    for phase in ("prefill", "prefill + decode", measure.META_GRADIENT, "outer update"):
        one, two = (
            measure.roofline(phase, Iteration(dataclasses.replace(config, tasks_per_step=n), shape, mesh), CHIPS["v5e"])
            for n in (1, 2)
        )
        assert 0 < one <= two
    assert measure.roofline("score", Iteration(Config(), shape, mesh), CHIPS["v5e"]) is None


def test_roofline_of_decoding_ignores_scorer():
    shape, mesh = shapes.shape_of("meta-llama/Llama-3.1-8B-Instruct"), make_mesh("fsdp:2,tensor:4")
    narrow, wide = (
        measure.roofline(
            "prefill + decode",
            Iteration(dataclasses.replace(llama31_8b_verifier.config(), scorer_width=width), shape, mesh),
            CHIPS["v5e"],
        )
        for width in (1024, 2048)
    )
    assert narrow == wide


def test_devices_of_local_topology():
    assert devices_of("local") == list(jax.devices())


HOSTILE_MODEL = "/models/v[1]_a|b<i>$x_{$ ü"


def test_page_escapes_model_path(tmp_path):
    header = {"preset": "tiny", "topology": "local", "num_slices": 1, "mesh": "data:1", "model": HOSTILE_MODEL}
    header |= {"tasks": 1, "m": 2, "k": 3, "tokens": 4, "K": 5, "rank": 6, "dtype": "float32"}
    text = plan_page.table(header, [])
    assert r"/models/v\[1\]\_a\|b&lt;i&gt;$x\_{$ ü, 1 task(s)" in text
    row = {
        "phase": "p",
        "weights": 1.0,
        "optimizer": 1.0,
        "scorer": 1.0,
        "temporaries": 1.0,
        "refused": "",
        "hbm": None,
    }
    plan_page.figure(header, [row], tmp_path / "plan.png")
    assert (tmp_path / "plan.png").stat().st_size > 1000
