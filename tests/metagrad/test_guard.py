"""Tests of check_optimizer and the table of optimizers."""

import pathlib

import jax
import jax.numpy as jnp
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError
from mass_jax.metagrad import support

EXACT = [name for name, entry in mg.SUPPORT.items() if entry.exact]
REFUSED = [name for name, entry in mg.SUPPORT.items() if not entry.exact]
WITH_SETTINGS = [name for name, entry in mg.SUPPORT.items() if entry.settings]


def build(name):
    found = optax
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", EXACT)
def test_supported_optimizers_are_exact_at_lora_start(name, toy, fast):
    def gradient(adjoint):
        return mg.meta_gradient(
            mg.WeightedLoss(toy.examples), toy.outer, toy.lora, toy.weights, toy.batch, toy.outer_batch,
            optimizer=mg.make_optimizer(name, 1e-2), num_steps=2, adjoint=adjoint,
        ).meta  # fmt: skip

    reverse, weighted = fast(lambda: (gradient(mg.ReverseUnroll()), gradient(mg.WeightedMixedMode())))()
    scale = float(jnp.linalg.norm(reverse))
    assert scale > 0
    assert float(jnp.linalg.norm(reverse - weighted)) < 1e-10 * scale


COUNTS = (1, 2, 3, 5, 8)


@pytest.mark.parametrize("name", mg.SUPPORT)
def test_support_equals_measured_table(name):
    (row,) = mg.support_table(COUNTS, [name])
    assert row.exact == mg.SUPPORT[name].exact
    assert _line(row) in PAGE
    if not row.exact:
        assert "exact" not in row.verdicts.values()
        with pytest.raises(UserError, match="is rejected"):
            mg.make_optimizer(name, 1e-2)


PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "reference" / "optimizers.md").read_text().splitlines()


def _line(row):
    return support.page([row]).splitlines()[-1]


def test_page_lists_all_optax_factories():
    names = [line.split("`")[1] for line in PAGE if line.startswith("| `")]
    assert names == sorted(names)
    if f"optax {optax.__version__} " in "\n".join(PAGE):
        assert names == sorted(support.factories())
    assert {"contrib.muon", "clip_by_global_norm", "radam"} <= set(names)


@pytest.mark.slow
def test_page_equals_command_output():
    assert support.page(mg.support_table(COUNTS)).splitlines() == PAGE


@pytest.mark.parametrize("name", [name for name in WITH_SETTINGS if mg.SUPPORT[name].settings == {"eps_root": 1e-8}])
def test_check_optimizer_suggests_eps_root(name):
    with pytest.raises(UserError, match="eps_root=1e-8"):
        mg.check_optimizer(build(name)(1e-2))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1)),
            r"wrong at \['a'\] where the inner gradient is 0",
        ),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.lars(0.1)), "wrong at"),
        (optax.chain(optax.clip(1.0), optax.sign_sgd(0.1)), "identically zero"),
        (optax.sm3(0.1, momentum=0.0), "use adagrad"),
        (optax.MultiSteps(optax.sgd(0.1), 4), "identically zero: take at least every_k_schedule"),
        (optax.polyak_sgd(), "update needs 'value'"),
        (optax.contrib.sophia(0.1), "update failed: obj_fn"),
        ("adagrad", "is a name"),
        (lambda rate: optax.sgd(rate), "got a function"),
    ],
)
def test_check_optimizer_error_suggests_fix(optimizer, message):
    with pytest.raises(UserError, match=message) as caught:
        mg.check_optimizer(optimizer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.MultiSteps(optax.sgd(0.1), 2),
        (optax.sgd(0.1).init, optax.sgd(0.1).update),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, eps_root=1e-3)),
        optax.sgd(0.1, momentum=0.9, accumulator_dtype=jnp.bfloat16),
    ],
    ids=["MultiSteps", "pair", "clip", "bfloat16 momentum"],
)
def test_check_optimizer_accepts_wrappers_and_clips(optimizer):
    mg.check_optimizer(optimizer, num_steps=3)


def _nan_from_step_four():
    """Builds an optimizer whose derivative, but not its value, is NaN from the fourth step on."""

    def update(grads, count, params=None):
        late = jnp.where(count < 3, 1.0, 0.0)
        updates = jax.tree.map(lambda g: -0.1 * (g + 0 * jnp.sqrt(jnp.abs(g) * late)), grads)
        return updates, count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def test_check_optimizer_covers_given_num_steps():
    params, grads = ({"w": leaf} for leaf in (jnp.ones(3), jnp.arange(1.0, 4.0)))
    mg.check_optimizer(_nan_from_step_four(), params, grads, num_steps=3)
    with pytest.raises(UserError, match=r"NaN at \['w'\]"):
        mg.check_optimizer(_nan_from_step_four(), params, grads, num_steps=4)


def test_check_optimizer_accepts_params_and_grads():
    params = {"layer": {"a": jnp.ones((3, 2)), "b": jnp.zeros((2, 3))}}
    grads = {"layer": {"a": jnp.zeros((3, 2)), "b": jnp.ones((2, 3))}}
    with pytest.raises(ValueError, match=r"\['layer'\]\['a'\]"):
        mg.check_optimizer(optax.adamw(1e-3), params, grads)
    with pytest.warns(mg.ScaleInvariantWarning):
        mg.check_optimizer(optax.adamw(1e-3), params, jax.tree.map(jnp.ones_like, grads))
    with pytest.raises(ValueError, match="without grads"):
        mg.check_optimizer(optax.adamw(1e-3), params)
    with pytest.raises(UserError, match="grads must have the structure and shapes of params"):
        mg.check_optimizer(optax.adamw(1e-3), params, params["layer"])


@pytest.mark.parametrize(
    ("optimizer", "options", "fix"),
    [
        (optax.chain(optax.clip(1.0), optax.adam(0.1, eps_root=1e-8)), {}, "eps_root of about 0.008"),
        (
            optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1)),
            {},
            "raise the threshold of clip_by_global_norm",
        ),
        (optax.adam(0.1, eps_root=1e-4), {"gradient_scale": 1.0}, "eps_root of about 9"),
    ],
    ids=["clip and adam", "clipped sgd", "large gradient"],
)
def test_check_optimizer_warns_of_scale_invariance(optimizer, options, fix):
    with pytest.warns(mg.ScaleInvariantWarning, match=f"cannot change a common level of the weights .*{fix}") as caught:
        mg.check_optimizer(optimizer, **options)
    assert len(caught) == 1


def test_check_optimizer_measures_given_gradient():
    """Clipping to norm 1 is scale-invariant for gradients beyond it; those of the default size are not clipped."""
    params, optimizer = {"w": jnp.ones(4)}, optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    mg.check_optimizer(optimizer, params, {"w": jnp.full(4, 0.1)}, num_steps=1)
    with pytest.warns(mg.ScaleInvariantWarning, match="at the given gradient"):
        mg.check_optimizer(optimizer, params, {"w": jnp.full(4, 5.0)}, num_steps=1)


def test_check_optimizer_rejects_zero_rate_warmup():
    optimizer = optax.sgd(optax.linear_schedule(0.0, 0.1, 1))
    mg.check_optimizer(optimizer, num_steps=2)
    with pytest.raises(ValueError, match="identically zero"):
        mg.check_optimizer(optimizer, num_steps=1)


def test_make_optimizer_rejects_unknown_name():
    with pytest.raises(ValueError, match="'sdg' is unknown"):
        mg.make_optimizer("sdg", 0.1)


WARMUP = optax.linear_schedule(0.0, 0.1, 4)


@pytest.mark.parametrize(
    ("optimizer", "num_steps", "fix"),
    [
        (optax.chain(optax.scale_by_sign(), optax.adam(0.1, eps_root=1e-4)), 2, "remove scale_by_sign"),
        (optax.chain(optax.scale_by_sign(), optax.sgd(0.1)), 2, "remove scale_by_sign"),
        (optax.chain(optax.normalize_by_update_norm(), optax.rmsprop(0.1)), 2, "remove normalize_by_update_norm"),
        (optax.sgd(WARMUP), 1, "take at least 2 inner steps, since the updates of earlier ones are 0, or start the"),
        (optax.adam(WARMUP, eps_root=1e-2), 1, "take at least 2 inner steps"),
        (optax.MultiSteps(optax.adam(0.1, eps_root=1e-4), 3), 2, "take at least every_k_schedule inner steps"),
        (optax.sgd(optax.linear_schedule(0.0, 0.1, 4, transition_begin=50)), 2, "give a learning rate, or a schedule,"),
        (optax.adamw(0.0, eps_root=1e-4), 2, "give a learning rate, or a schedule, that is not 0"),
        (optax.rmsprop(0.1, eps_in_sqrt=False), 2, "pass eps_in_sqrt=True"),
        (optax.adamax(0.1), 2, "pass eps=0.001"),
        (optax.chain(optax.normalize_by_update_norm(), optax.adam(0.1)), 2, "eps_root=1e-8 .*; and remove norm"),
    ],
)  # fmt: skip
def test_error_names_fix_that_works(optimizer, num_steps, fix):
    with pytest.raises(UserError, match=f": {fix}" if not fix.startswith("eps") else fix):
        mg.check_optimizer(optimizer, num_steps=num_steps)


CLIP = optax.clip_by_global_norm(1e-3)


@pytest.mark.parametrize(
    ("optimizer", "fix"),
    [
        (optax.chain(CLIP, optax.adam(0.1, eps_root=0.008)), "raise the threshold of clip_by_global_norm"),
        (optax.chain(CLIP, optax.adamw(0.1, eps_root=1e-10)), "pass eps_root of about 0.008, .*; and raise the thresh"),
        (optax.rmsprop(0.1), "pass eps of about 0.008"),
        (optax.chain(optax.scale(100.0), optax.amsgrad(0.1, eps_root=1e-6)), "pass eps_root of about 0.008"),
    ],
)
def test_warning_names_fix_that_works(optimizer, fix):
    with pytest.warns(mg.ScaleInvariantWarning, match=rf"\): {fix}"):
        mg.check_optimizer(optimizer)


def test_warning_takes_scale_of_given_gradient():
    params, grads = {"w": jnp.zeros(8)}, {"w": jnp.linspace(4.0, 6.0, 8)}
    with pytest.warns(mg.ScaleInvariantWarning, match="pass eps_root of about 200"):
        mg.check_optimizer(optax.adam(0.1, eps_root=1e-4), params, grads)
    mg.check_optimizer(optax.adam(0.1, eps_root=200.0), params, grads)
