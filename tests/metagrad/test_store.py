"""Tests of trajectories outside of the device: same meta-gradient, constant memory, and files that leave no trace."""

import errno
import os
import resource

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mass_jax import errors, runtime
from mass_jax import metagrad as mg
from mass_jax.errors import UserError
from mass_jax.metagrad import host_call, trajectory
from mass_jax.metagrad.disk_records import DiskRecords

STEP = 1e-5


def gradient(toy, weights, adjoint, num_steps=3, **settings):
    # The optimizer state has floating-point leaves, a counter and a PRNG key.
    noise = optax.add_noise(1e-3, 0.5, jax.random.key(7))
    return mg.meta_gradient(
        mg.WeightedLoss(toy.examples), toy.outer, toy.whole, weights, toy.batch, toy.outer_batch,
        optimizer=optax.chain(noise, optax.adam(0.1, eps_root=1e-4)), num_steps=num_steps, adjoint=adjoint, **settings,
    )  # fmt: skip


def _same(x):
    return (x,)


def open_files(directory):
    """Returns the open files in a directory, also those without a name."""
    links = (os.path.join("/proc/self/fd", each) for each in os.listdir("/proc/self/fd"))
    return [target for link in links if os.path.lexists(link) and str(directory) in (target := os.readlink(link))]


def test_stores_give_the_unrolled_gradient(toy, fast, tmp_path):
    direction = jnp.array([1.0, -2.0, 0.5, 1.5])

    def all_of(weights):
        ways = {
            "reverse": mg.ReverseUnroll(),
            "host": mg.MixedMode("save_grads", mg.HostStore()),
            "disk": mg.MixedMode("step", mg.DiskStore(str(tmp_path))),
        }
        found = {name: gradient(toy, weights, way, wrt_params=True) for name, way in ways.items()}
        up, down = (gradient(toy, weights + s * STEP * direction, mg.FirstOrder()).value for s in (1, -1))
        return found, (up - down) / (2 * STEP)

    found, slope = fast(all_of)(toy.weights)
    for name in ("host", "disk"):
        np.testing.assert_allclose(found[name].meta, found["reverse"].meta, rtol=1e-11)
        np.testing.assert_allclose(found[name].params["w"], found["reverse"].params["w"], rtol=1e-11)
        np.testing.assert_allclose(found[name].aux.losses_K, found["reverse"].aux.losses_K, rtol=1e-12)
        np.testing.assert_allclose(found[name].meta @ direction, slope, rtol=1e-6)
    assert (trajectory.opened(), open_files(tmp_path), os.listdir(tmp_path)) == (0, [], [])


def test_stores_work_under_vmap_and_map(toy, fast):
    weights = jnp.stack([toy.weights, 2 * toy.weights])

    def all_of(weights):
        def with_store(weights):
            return gradient(toy, weights, mg.WeightedMixedMode("step", mg.DiskStore()), num_steps=2).meta

        exact = jax.vmap(lambda weights: gradient(toy, weights, mg.WeightedMixedMode(), num_steps=2).meta)(weights)
        return exact, jax.vmap(with_store)(weights), jax.lax.map(with_store, weights)

    exact, together, in_turn = fast(all_of)(weights)
    np.testing.assert_allclose(together, exact, rtol=1e-12)
    np.testing.assert_allclose(in_turn, exact, rtol=1e-12)
    assert trajectory.opened() == 0


def small(params, adjoint, num_steps):
    """Gradient of a problem that compiles in a moment."""
    return mg.meta_gradient(
        mg.WeightedLoss(lambda p, b: jnp.stack([jnp.sum(jnp.sin(p)), jnp.sum(p**2)])), lambda p, b: jnp.sum(p**2),
        params, jnp.ones(2, params.dtype), None, None, optimizer=optax.sgd(0.1, momentum=0.9), num_steps=num_steps,
        adjoint=adjoint,
    ).meta  # fmt: skip


def test_memory_does_not_grow_with_steps_and_one_step_works(fast):
    params = jnp.linspace(0, 1, 50_000, dtype=jnp.float32)

    def compiled(adjoint, num_steps):
        return fast(lambda params: small(params, adjoint, num_steps)).lower(params).compile()

    stored, device = mg.WeightedMixedMode(store=mg.HostStore()), mg.WeightedMixedMode()
    short, long = compiled(stored, 1), compiled(stored, 200)
    temporaries = [program.memory_analysis().temp_size_in_bytes for program in (short, long)]
    assert temporaries[1] < 1.5 * temporaries[0] + 8 * params.nbytes
    assert temporaries[1] < compiled(device, 200).memory_analysis().temp_size_in_bytes / 10
    # One step of SGD: d/dw_i (p - 0.1 sum w g)^2 = -0.2 <p_1, g_i>.
    start = np.linspace(0, 1, 50_000, dtype=np.float32).astype(np.float64)
    grads = np.stack([np.cos(start), 2 * start])
    np.testing.assert_allclose(short(params), -0.2 * grads @ (start - 0.1 * grads.sum(0)), rtol=1e-4)


def test_full_disk_is_reported_and_leaves_nothing_open(tmp_path, fast):
    run = fast(lambda params: small(params, mg.MixedMode(store=mg.DiskStore(str(tmp_path))), 2))
    params = jnp.ones(1000, jnp.float32)
    program = run.lower(params).compile()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))  # bytes; no file can hold the trajectory
    try:
        with pytest.raises(jax.errors.JaxRuntimeError) as caught:
            jax.block_until_ready(program(params))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(errors.from_program(caught.value))
    assert os.strerror(errno.EFBIG) in message
    assert "--adjoint_store=disk:DIRECTORY" in message
    assert "\n" not in message
    assert (trajectory.opened(), open_files(tmp_path)) == (0, [])


@pytest.mark.parametrize(
    ("name", "record_bytes", "message"),
    [("file", 8, "Not a directory"), ("missing", 8, "No such file"), (".", 2**60, r"needs 2.15e\+09 GiB, but .* free")],
)
def test_unusable_directory_is_reported_in_one_line(tmp_path, name, record_bytes, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{message}.*; give another directory") as caught:
        mg.DiskStore(str(tmp_path / name)).check(record_bytes, count=2)
    assert "\n" not in str(caught.value)


def test_disk_records_keep_every_type_in_a_file_without_a_name(tmp_path):
    records = DiskRecords(str(tmp_path), count=5)
    arrays = [
        [np.full((2, 3), i + 0.5, ml_dtypes.bfloat16), np.asarray(i, np.int32), np.array([i % 2 == 0]), np.zeros(0)]
        for i in range(5)
    ]
    for index, each in enumerate(arrays):
        records.write(index, each)
    assert os.listdir(tmp_path) == []  # so a killed process leaves nothing behind
    assert len(open_files(tmp_path)) == 1
    for index in (4, 3, 2, 1, 0, 3):
        for found, expected in zip(records.read(index), arrays[index], strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
    records.close()
    assert open_files(tmp_path) == []


def test_adjoints_check_their_store():
    with pytest.raises(UserError, match=r"store='host' is not a store; give HostStore\(\)"):
        mg.MixedMode(store="host")
    with pytest.raises(UserError, match="remat='recursive' keeps its states on the device"):
        mg.WeightedMixedMode("recursive", mg.HostStore())
    assert repr(mg.MixedMode("step")) == "MixedMode(remat='step')"
    assert repr(mg.MixedMode(store=mg.HostStore())) == "MixedMode(remat='save_grads', store=HostStore())"


def test_mesh_of_several_devices_is_refused():
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    mesh = runtime.make_mesh("data:2,fsdp:1,tensor:1", jax.devices()[:2])
    split = jax.device_put(jnp.zeros(2), NamedSharding(mesh, PartitionSpec("data")))
    with pytest.raises(UserError, match="mesh of 2 devices; use one device, or --adjoint_store=device"):
        jax.jit(lambda x: host_call.call(_same, [jax.ShapeDtypeStruct((2,), jnp.float32)], x)).lower(split)
