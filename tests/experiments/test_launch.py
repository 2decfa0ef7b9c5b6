"""Tests for experiments.launch: printed commands, validation, and real local processes."""

import pathlib
import re
import shlex
import sys

import pytest

from experiments.launch import local_commands, run_together
from experiments.launching.recipes import render
from experiments.launching.topologies import accelerator, topology_shape
from experiments.presets import tiny
from tests.commands import in_process

GIVEN = {"name": "mass", "zone": "z", "topology": "v5e:4x4", "num_slices": 1, "cluster": "c", "image": "i",
         "repository": "URL", "num_nodes": 2, "gpus_per_node": 8}  # fmt: skip
ARGUMENTS = ["--preset=tiny", "--workdir=with space"]


def test_local_commands_connect_processes():
    first, second = local_commands("experiments.train", ARGUMENTS, 2, 9)
    assert first[1:] == ["-m", "experiments.train", *ARGUMENTS, "--coordinator=127.0.0.1:9", "--num_processes=2",
                         "--process_id=0"]  # fmt: skip
    assert second[-1] == "--process_id=1"
    assert local_commands("m", [], 1, 9)[0][1:] == ["-m", "m"]


def test_slurm_starts_one_process_per_gpu():
    recipe = render("slurm", "m", [], **GIVEN)
    options = "--nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --exclusive --mem=0 --signal=TERM@120 --requeue"
    assert options in recipe
    recipe = render("slurm", "m", [], **GIVEN | {"gpus_per_node": 0})
    assert "--ntasks-per-node=1 --exclusive" in recipe


def test_accelerator_names_topology():
    assert [accelerator(t) for t in ("v5e:4x4", "v5p:4x4x4", "v4:2x2x1", "v6e:8x8", "tpu7x:2x2x1")] == [
        "v5litepod-16",
        "v5p-128",
        "v4-8",
        "v6e-64",
        "tpu7x-8",
    ]
    for mistyped in ("v5e", "v5e:", "v5e:4x", "v5e:0x4", "v9:4x4"):
        with pytest.raises(ValueError, match=f"'{mistyped}' is unknown; write v4, v5e"):
            accelerator(mistyped)


def test_gcloud_refuses_what_needs_xpk():
    with pytest.raises(ValueError, match="--num_slices=2: gcloud starts one slice; use --backend=xpk"):
        render("gcloud", "m", [], **GIVEN | {"num_slices": 2})
    with pytest.raises(ValueError, match="gcloud has no TPU VM of tpu7x; use --backend=xpk"):
        render("gcloud", "m", [], **GIVEN | {"topology": "tpu7x:2x2x1"})


@pytest.mark.parametrize(
    ("backend", "name"),
    [("gcloud", "zone"), ("gcloud", "repository"), ("xpk", "cluster"), ("slurm", "name"), ("skypilot", "name")],
)
def test_render_names_missing_flag(backend, name):
    with pytest.raises(ValueError, match=f"--backend={backend} needs --{name}"):
        render(backend, "m", [], **GIVEN | {name: ""})


def program(code):
    return [sys.executable, "-c", code]


def test_run_together_stops_all_on_failure():
    assert run_together([program("pass"), program("pass")]) == 0
    waits = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(100)"
    assert run_together([program(waits), program("exit(3)")]) == 3


TOKEN = "ghp_s3cret"
# (launcher's flags, launched command line, part of the message or "" if valid)
TPU = "--backend=gcloud --topology=v5e:4x4 --name=mass --zone=z --repository=URL"
XPK = "--backend=xpk --topology=v5e:4x4 --name=mass --cluster=c --image=i"
SKY = "--backend=skypilot --name=mass"
SLURM = "--backend=slurm --num_nodes=2 --gpus_per_node=8 --name=mass"
ANY = "--preset=llama31_8b_verifier"
BIG = f"{ANY} --workdir=/mnt/shared/mass"
CASES = [
    ("--num_processes=2", "--preset=tiny --workdir=runs/two", ""),
    ("", "--preset=tyni --workdir=runs/two", "--preset='tyni' is unknown; did you mean 'tiny'?"),
    ("", "--preset=tiny --workdir=runs/two --iner_steps=3", "Did you mean: inner_steps"),
    ("", "--workdir=runs/two --adjoint=mixd", "--adjoint='mixd' is unknown; did you mean 'mixed'?"),
    ("", "--workdir=runs/two --steps=many", "--steps=many"),
    ("", "--workdir=runs/two --seeds=0,x", "must be a list of int"),
    ("", "--workdir=runs/two --warmup_steps=500", "leaves no steps of --steps=120"),
    ("", "--workdir=runs/two tiny", "unexpected argument 'tiny'"),
    ("", "--preset=tiny", "--workdir is missing"),
    ("", "--workdir=runs/v[1]", "checkpoints under a path with '['"),
    ("", "--workdir=ftp://host/run", "ftp:// is not supported; give a directory, gs://... or s3://..."),
    ("", "--workdir=runs/two --mesh=rows:2", "'rows:2' is not an axis with its size"),
    ("", "--workdir runs/two --process_id=1", "--process_id=1 is set by the launcher"),
    ("", "--workdir=TAKEN --gamma=0.7", "was started with gamma=0.1, now it is 0.7"),
    ("", "--workdir=TAKEN", ""),
    ("--zone=z", "--workdir=runs/two", "--zone=z is for --backend=gcloud|xpk, not local; leave it out"),
    ("--module=experiments.trian", "--workdir=x", "cannot be imported"),
    ("--module=experiments.trian", "--workdir=x", "did you mean 'experiments.train'?"),
    (TPU, BIG, ""),
    (TPU, f"{BIG} --mesh=fsdp:4,tensor:4", ""),
    (TPU, f"{BIG} --mesh=fsdp:4,tensor:8", "takes 32 devices, but --topology=v5e:4x4 x 1 has 16"),
    (TPU, f"{ANY} --workdir=gs://bucket/run", "several hosts write one checkpoint together"),
    (TPU, f"{ANY} --workdir=gs://bucket/run --local_workdir=/mnt/shared/run", ""),
    (TPU, f"{ANY} --workdir=gs://bucket/run --local_workdir=~/run", "/run: each host of gcloud would write"),
    (TPU, f"{ANY} --workdir=gs://bucket", "names no path in a bucket"),
    (TPU, f"{ANY} --workdir=ftp://host/run", "ftp:// is not supported"),
    (f"{TPU} --topology=v5e:2x4", f"{ANY} --workdir=gs://bucket/run", ""),
    (f"{TPU} --topology=v4:2x2x2", f"{ANY} --workdir=gs://bucket/run", "add --local_workdir"),
    (f"{SKY} --accelerators=H100:8", f"{ANY} --workdir=s3://bucket/run", ""),
    (f"{SKY} --accelerators=H100:8 --num_nodes=2", f"{ANY} --workdir=s3://bucket/run", "add --local_workdir"),
    (SLURM, f"{ANY} --workdir=s3://bucket/run", "add --local_workdir"),
    (f"{XPK} --topology=v5e:2x4", f"{ANY} --workdir=gs://bucket/run", "add --local_workdir"),
    (TPU, f"{ANY} --workdir=memory://bucket/run --local_workdir=/mnt/a", "is in the memory of one process"),
    (TPU, f"{ANY} --workdir=gs://bucket/run --local_workdir=gs://b/l", "--local_workdir=gs://b/l is a URL"),
    (TPU, f"{BIG} --local_workdir=/mnt/l", "--local_workdir=/mnt/l needs a URL as --workdir"),
    (
        f"{TPU} --mount=/mnt/shared=gs://b",
        f"{ANY} --workdir=gs://bucket/run --local_workdir=/mnt/shared/run",
        "--local_workdir=/mnt/shared/run is on the bucket gs://b, whose mount delays appends",
    ),
    (TPU, "--preset=llama31_8b_verifier --workdir=runs/big", "each host of gcloud would write to its own directory"),
    (TPU, "--preset=llama31_8b_verifier --workdir=~/big", "each host of gcloud would write to its own directory"),
    (f"{TPU} --repository=https://{TOKEN}@host/a", BIG, "--repository has credentials"),
    (f"{XPK} --repository=https://user:{TOKEN}@host/a", BIG, "--repository has credentials"),
    (f"{TPU} --repository=ssh://user:{TOKEN}@host/a", BIG, "--repository has credentials"),
    (f"{TPU} --repository=ssh://git@host/a", BIG, ""),
    (f"{TPU} --repository=git@host:a/b", BIG, ""),
    (f"{TPU} --repository=https://host/@a/b", BIG, ""),
    (f"{TPU} --gpus_per_node=8", BIG, "--gpus_per_node=8 is for --backend=slurm, not gcloud"),
    (f"{TPU} --name=My_Run", BIG, "--name='My_Run': gcloud takes names of at most 40 lowercase letters"),
    (XPK, BIG, ""),
    (f"{XPK} --num_slices=2", f"{BIG} --mesh=data:2,fsdp:4,tensor:4", ""),
    (f"{XPK} --spot", BIG, "--spot=True is for --backend=gcloud|skypilot, not xpk"),
    (f"{XPK} --topology=v5e:4x5", BIG, "v5e has no such shape; did you mean '4x"),
    (SLURM, "--preset=llama31_8b_verifier --workdir=runs/big", ""),
    (SLURM, f"{BIG} --mesh=fsdp:8", "takes 8 devices, but --num_nodes=2 --gpus_per_node=8 has 16"),
    (f"{SLURM} --topology=v5e:4x4", BIG, "--topology=v5e:4x4 is for --backend=gcloud|xpk|skypilot, not slurm"),
    (f"{SKY} --accelerators=H100:8", f"{BIG} --mesh=fsdp:8", ""),
    (f"{SKY} --topology=v5e:4x4", f"{BIG} --mesh=fsdp:16", ""),
    (f"{SKY} --accelerators=H100:8", f"{BIG} --mesh=fsdp:4", "but --num_nodes=1 --accelerators=H100:8 has 8"),
    (SKY, BIG, "needs one of --accelerators, such as H100:8, and --topology"),
    (f"{SKY} --accelerators=H100:8 --num_nodes=2 --mount=/mnt/shared=gs://b", BIG, "use one node"),
    (f"{SKY} --accelerators=H100:8 --mount=/mnt=10.0.0.2:/a", BIG, "write /mnt=gs://bucket"),
    (f"{TPU} --mount=/mnt/shared=gs://b", BIG, "whose mount delays appends"),
    (f"{TPU} --mount=/mnt/shared=10.0.0.2:/a --mount=/mnt/data=gs://b", BIG, ""),
    (f"{TPU} --mount=mnt=gs://b", BIG, "the path must be absolute"),
    (f"{TPU} --mount=/mnt/a=s3://b", BIG, "gcloud mounts buckets like gs://bucket"),
    (f"{TPU} --stage=org/name", BIG, "add --model=/mnt/shared/model after --"),
    (f"{TPU} --stage=org/name", f"{BIG} --model=/mnt/shared/m", ""),
    (f"{XPK} --stage=gs://a/b", f"{BIG} --model=/mnt/shared/m", "xpk storage attach"),
    (f"{TPU} --action=supervise", BIG, "needs --backend=gcloud --restart_on_preemption"),
    (f"{TPU} --env=NO_SUCH_VARIABLE", BIG, "NO_SUCH_VARIABLE is not set in this environment"),
    ("--env_file=missing", "--workdir=runs/two", "--env_file=missing cannot be read: No such file"),
]


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """Working directory of the launches, with a run that was started with the tiny preset."""
    where = tmp_path_factory.mktemp("launch")
    (where / "taken" / "seed0").mkdir(parents=True)
    (where / "taken" / "config.json").write_text(tiny.config().to_json())
    (where / "taken" / "seed0" / "metrics.jsonl").write_text("{}\n")
    return where


@pytest.mark.parametrize(("own", "forwarded", "message"), CASES)
def test_launch_validates_launched_command(where, monkeypatch, own, forwarded, message):
    monkeypatch.chdir(where)
    given = shlex.split(forwarded.replace("TAKEN", str(where / "taken")))
    done = in_process("launch", *shlex.split(own), "--", *given)
    assert [path.name for path in where.iterdir()] == ["taken"]  # nothing was written
    if message:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert message in done.stderr
        assert TOKEN not in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        words = [word for word in forwarded.split() if "TAKEN" not in word]
        assert all(word in done.stdout for word in words)


@pytest.mark.parametrize(
    ("topology", "known"),
    [
        *(("v5e:1x1", True), ("v5e:8x16", True), ("v6e:2x4", True), ("v5e:4x2", False), ("v5e:16x8", False)),
        *(("v6e:3x3", False), ("v5e:2x2x2", False), ("v5p:2x2x4", True), ("v5p:8x8x16", True), ("v5p:4x4", False)),
        *(("v5p:4x4x6", False), ("v4:4x2x2", False), ("v4:4x4x12", True), ("tpu7x:2x4x4", True), ("tpu7x:4x4", False)),
    ],
)
def test_topology_shape_refuses_unoffered_shapes(topology, known):
    if known:
        chip, sides = topology_shape(topology)
        assert topology == f"{chip}:{'x'.join(map(str, sides))}"
    else:
        with pytest.raises(ValueError, match="has no such shape"):
            topology_shape(topology)


def test_launch_prints_by_default(tmp_path):
    done = in_process("launch", "--num_processes=2", "--", f"--workdir={tmp_path / 'a b'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"-m experiments.train '--workdir={tmp_path}/a b' --coordinator=127.0.0.1:") == 2
    assert not list(tmp_path.iterdir())


GUIDES = sorted((pathlib.Path(__file__).parents[2] / "docs/guides").glob("launch_*.md"))
DOCUMENTED = [
    shlex.split(block.replace("\\\n", " ").partition(" > ")[0])
    for guide in GUIDES
    for block in re.findall(
        r"^python -m experiments\.launch (.*?)(?:\n```|\nbash )", guide.read_text("utf-8"), re.M | re.S
    )
]


@pytest.mark.parametrize("arguments", DOCUMENTED, ids=lambda arguments: arguments[0])
def test_documented_commands_are_accepted(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_")
    done = in_process("launch", *arguments[: arguments.index("--")], "--dry_run", *arguments[arguments.index("--") :])
    assert (done.returncode, done.stderr) == (0, "")
    assert "experiments.train" in done.stdout


def test_every_guide_has_a_command():
    assert len(GUIDES) == 5
    assert len(DOCUMENTED) >= 8
