"""Workdirs whose optimizers are the user's own code: it runs only if named again, and only where it is needed."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import optax
import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.harnesses.opening import open_model
from mass_jax.harnesses.options import parse
from mass_jax.serving import loading, source
from mass_jax.serving.guards.policy import Policy
from tests.commands import in_process
from tests.written_runs import write_run

OWN = f"{pathlib.Path(__file__).parents[1] / 'e2e' / 'own_optimizer.py'}:make"
OTHERS = ("policy_optimizer", "scorer_optimizer", "solver_grpo_optimizer", "learn_optimizer")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir of a run with own optimizers that learned the inner learning rate, 0.05."""
    config = Config(inner_optimizer=OWN, learn="inner_lr", policy_optimizer=OWN, learn_optimizer=OWN)
    learned = {"inner_lr": np.float32(np.log(0.05))}
    workdir = write_run(tmp_path_factory.mktemp("trained"), config, inner=learned)
    (workdir / "policy.json").write_text(Policy().to_json())
    return workdir


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy whose settings name code that ends the process, as that of somebody else may; `code` is its file."""
    copy = pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
    (tmp_path / "code.py").write_text("raise SystemExit('the code ran')\n")
    path = copy / "config.json"
    named = dict.fromkeys(("inner_optimizer", *OTHERS), f"{tmp_path / 'code.py'}:make")
    path.write_text(dataclasses.replace(Config.from_json(path.read_text(), [OWN]), **named).to_json())
    return copy


def code_of(workdir):
    return f"{workdir.parent / 'code.py'}:make"


def weights_in(found):
    found.chosen.close()
    return {float(np.unique(leaf).item()) for leaf in jax.tree.leaves(found.weights.policy)}


def test_load_model_refuses_unnamed_inner_optimizer(workdir):
    with pytest.raises(UserError) as caught:
        source.load_model(str(workdir))
    assert str(caught.value) == (
        f"the settings in {workdir} name code to run; pass --inner_optimizer={code_of(workdir)} if you trust it"
    )


def test_refusal_quotes_an_expression_for_the_shell(tmp_path):
    (tmp_path / "config.json").write_text(Config(inner_optimizer="clip(1.0) | own.py:make").to_json())
    with pytest.raises(UserError, match=r"pass --inner_optimizer='clip\(1\.0\) \| own\.py:make' if you trust it"):
        source.load_model(str(tmp_path))


def test_load_model_opens_own_inner_optimizer_named_again(trained):
    """Here the run learned the learning rate, which is stored beside the generator."""
    found = source.load_model(str(trained), inner_optimizer=OWN)
    assert weights_in(found) == {2.0}
    assert (found.config.inner_optimizer, found.weights.inner) == (OWN, None)
    assert found.config.inner_lr == pytest.approx(0.05)
    assert {getattr(found.config, name) == getattr(Config(), name) for name in OTHERS} == {True}  # for training only


def test_own_inner_optimizer_may_have_moved(workdir, caplog):
    found = source.load_model(str(workdir), inner_optimizer=OWN)
    assert weights_in(found) == {2.0}
    assert f"opening with --inner_optimizer={OWN}; the run was trained with --inner_optimizer=" in caplog.text
    with pytest.raises(SystemExit, match="the code ran"):
        source.load_model(str(workdir), inner_optimizer=code_of(workdir))


@pytest.mark.parametrize(
    ("stored", "given", "message"),
    [
        (OWN, "sgd", f"--inner_optimizer=sgd: the run in .* has --inner_optimizer={OWN}; pass that$"),
        ("adam", OWN, f"--inner_optimizer={OWN}: the run in .* has .*=adam; omit the flag, or pass that$"),
        (OWN, "sgdd", "^--inner_optimizer='sgdd': character 1: 'sgdd' is unknown"),
        ("custom", None, "'custom' stands for an optimizer from Python; pass inner_optimizer= again, or name another"),
    ],
)
def test_load_model_refuses_other_inner_optimizers(stored, given, message, tmp_path):
    (tmp_path / "config.json").write_text(Config(inner_optimizer=stored).to_json())
    with pytest.raises(UserError, match=message) as caught:
        source.load_model(str(tmp_path), inner_optimizer=given)
    assert "\n" not in str(caught.value)


def test_optimizer_from_python_can_be_passed_again_or_named(tmp_path):
    optimizer = optax.sgd(0.1)
    for stored in (OWN, "custom", "sgd"):
        (tmp_path / "config.json").write_text(Config(inner_optimizer=stored).to_json())
        found = source.load_model(str(tmp_path), inner_optimizer=optimizer)
        found.chosen.close()
        assert (found.rollouts.loop.optimizer, found.config.inner_optimizer) == (optimizer, "custom")
    (tmp_path / "config.json").write_text(Config(inner_optimizer="custom").to_json())
    found = source.load_model(str(tmp_path), inner_optimizer="sgd(0.3)")
    found.chosen.close()
    assert found.config.inner_optimizer == "sgd(0.3)"


def test_pretrained_model_takes_an_inner_optimizer():
    found = source.load_model("tiny", inner_optimizer=OWN)
    found.chosen.close()
    assert found.config.inner_optimizer == OWN


def test_outer_optimizers_are_not_needed(workdir):
    path = workdir / "config.json"
    settings = path.read_text().replace(f'"inner_optimizer": "{code_of(workdir)}"', '"inner_optimizer": "sgd"')
    path.write_text(settings)
    assert weights_in(source.load_model(str(workdir))) == {2.0}


def test_weights_are_read_without_the_inner_optimizer(workdir):
    found = source.load_model(str(workdir), adapts=False)
    assert weights_in(found) == {2.0}
    with loading.load(str(workdir), adapt=False) as service:
        assert service.setup.label.endswith("step 2")
    plain = open_model(parse({"workdir": str(workdir)}))
    assert plain.label.endswith("step 2")


def test_export_needs_no_optimizer_without_event(workdir, tmp_path):
    done = in_process("export", f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert (done.returncode, done.stdout) == (0, f"wrote {tmp_path / 'out'}: {workdir}, mass, seed 0, step 2\n")


@pytest.mark.parametrize("command", ["solve", "serve", "validate", "harness"])
def test_commands_name_the_flag_that_helps(command, workdir):
    code, given = code_of(workdir), {"solve": ("--problem=4 kabo 3",), "serve": ("--port=0",)}
    given["validate"] = (f"--trained={workdir}", f"--workdir={workdir.parent / 'signal'}")

    def last_line(*more):
        if command == "harness":
            arguments = {"workdir": str(workdir), "adapt": "true"}
            arguments |= {"inner_optimizer": more[0].partition("=")[2]} if more else {}
            with pytest.raises(UserError) as caught:
                open_model(parse(arguments))
            return f"error: {caught.value}"
        source_of = () if command == "validate" else (f"--workdir={workdir}",)
        done = in_process(command, *source_of, *given[command], *more)
        assert done.returncode == 2
        return done.stderr.splitlines()[-1]

    refused = f"error: the settings in {workdir} name code to run; pass --inner_optimizer={code} if you trust it"
    assert last_line() == refused
    (workdir.parent / "code.py").write_text("raise RuntimeError('it was imported')\n")
    assert "RuntimeError: it was imported" in last_line(f"--inner_optimizer={code}")


def test_audit_passes_the_inner_optimizer_on(workdir, monkeypatch):
    def look(*_, inner_optimizer, **__):
        raise UserError(f"given: {inner_optimizer}")

    monkeypatch.setattr(source, "load_model", look)
    monkeypatch.setattr("mass_jax.serving.replay.problem_of", lambda *_: "4 kabo 3")
    for command in (["audit", "replay", "1"], ["export", "--event=1", f"--out={workdir / 'out'}"]):
        monkeypatch.setattr("mass_jax.audit.log.records", lambda _: [({"number": 1}, None)])
        done = in_process(*command, f"--workdir={workdir}", f"--inner_optimizer={OWN}")
        assert done.stderr.splitlines()[-1] == f"error: given: {OWN}"
