"""Optimizers from expressions: the objects of optax, the arguments that flags fill in, and one-line refusals."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

from mass_jax import metagrad as mg
from mass_jax.errors import UserError
from mass_jax.metagrad import building, support
from mass_jax.optax_functions import COMMON
from tests.metagrad.conftest import FAST

PARAMS = {"a": jnp.ones((3, 2), jnp.float32), "b": jnp.zeros(2, jnp.float32)}


def program(optimizer):
    """The traced update, in which equal programs have equal text."""
    with jax.numpy_dtype_promotion("standard"):
        return str(jax.make_jaxpr(lambda g: optimizer.update(g, optimizer.init(PARAMS), PARAMS))(PARAMS))


@pytest.mark.parametrize("name", COMMON)
def test_bare_names_build_programs_of_make_optimizer(name):
    known, settings = ("sgd", {"momentum": 0.9}) if name == "momentum" else (name, {})
    if "eps_root" in mg.SUPPORT[known].settings:
        settings = {"eps_root": 1e-5}
    assert program(mg.parse_optimizer(name, 0.3, 1e-5)) == program(mg.make_optimizer(known, 0.3, **settings))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip(0.5) | sgd", optax.chain(optax.clip(0.5), optax.sgd(0.3))),
        ("sgd(0.7)", optax.sgd(0.7)),
        ("sgd(cosine_decay_schedule(0.2, 4))", optax.sgd(optax.cosine_decay_schedule(0.2, 4))),
        ("adam(b1=0.8, eps_root=auto)", optax.adam(0.3, b1=0.8, eps_root=1e-5)),
        ("adam(eps_root=1e-3)", optax.adam(0.3, eps_root=1e-3)),
        ("adamax", optax.adamax(0.3, eps=1e-3)),
        ("adam(mu_dtype=bfloat16)", optax.adam(0.3, mu_dtype=jnp.bfloat16, eps_root=1e-5)),
        ("chain(clip(0.5), sgd(1.0) | scale(2.0))", optax.chain(optax.clip(0.5), optax.sgd(1.0), optax.scale(2.0))),
        ("scale_by_adam | scale_by_learning_rate", optax.adam(0.3, eps_root=1e-5)),
        ("flatten(sgd)", optax.flatten(optax.sgd(0.3))),
    ],
)
def test_expressions_build_programs_of_optax(text, expected):
    assert program(mg.parse_optimizer(text, 0.3, 1e-5)) == program(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip(1.0) | lion", "character 13: 'lion' is rejected: it moves by the sign of the gradient"),
        ("cosine_decay_schedule(0.1, 2)", "cosine_decay_schedule returns a function, not an optimizer"),
        ("clip", "character 1: clip needs max_delta; write clip(max_delta=...)"),
        ("adam(eps=auto)", "character 6: auto is a value of eps_root of an inner optimizer only; give a number"),
        ("inject_hyperparams(sgd)", "character 1: inject_hyperparams failed: TypeError"),
        ("math:sqrt", "character 1: math:sqrt needs x; write math:sqrt(x=...)"),
        ("math:pi", "math:pi returns a float, not an optimizer"),
        ("math:pi(1)", "math:pi is not a function; remove the arguments"),
        ("custom", "'custom' stands for an optimizer from Python; pass inner_optimizer= again"),
    ],
)
def test_unusable_expressions_are_refused_in_one_line(text, message):
    with pytest.raises(UserError) as caught:
        mg.parse_optimizer(text, 0.1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outer_optimizers_need_no_derivative():
    assert building.resolve("lion", 0.1, differentiable=False) == building.resolve("lion(0.1)", 0, differentiable=False)
    assert program(mg.parse_optimizer("adam", 0.1, differentiable=False)) == program(optax.adam(0.1))
    with pytest.raises(UserError, match="auto is a value of eps_root of an inner optimizer"):
        building.resolve("adam(eps_root=auto)", 0.1, differentiable=False)


# Values of required arguments that the grammar can express; functions that need others say which are missing.
VALUES = {"learning_rate": "0.1", "max_consecutive_errors": "2", "noise_multiplier": "0.1", "l2_norm_clip": "1.0"}
VALUES |= {"clipping": "1.0", "max_delta": "1.0", "threshold": "1.0", "max_norm": "1.0", "decay": "0.9", "key": "0"}
VALUES |= {"seed": "0", "step_size": "-0.1", "eta": "0.01", "gamma": "0.5", "step_size_fn": "constant_schedule(-0.1)"}
VALUES |= {"max_backtracking_steps": "4", "max_linesearch_steps": "4", "sync_period": "2", "slow_step_size": "0.5"}
VALUES |= dict.fromkeys(("inner", "optimizer", "adv_optimizer", "base_optimizer", "fast_optimizer", "tx"), "sgd")


def expression_of(name):
    """The function with the arguments that it needs."""
    parameters = inspect.signature(support.factories()[name]).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    given = ", ".join(f"{each}={VALUES[each]}" for each in needed if each in VALUES)
    return f"{name}({given})"


def build_all(names):
    """Builds optimizers; returns them, and the errors of the others."""
    built, errors = {}, {}
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # noisy_sgd wants a key
            try:
                built[name] = mg.parse_optimizer(expression_of(name), 0.1, 1e-4)
            except UserError as error:
                errors[name] = str(error)
    return built, errors


def test_every_optax_function_builds_or_is_refused():
    built, errors = build_all(support.factories())
    assert len(built) > 85
    assert all(error.startswith("character 1: ") and "\n" not in error for error in errors.values())
    assert {name for name, entry in mg.SUPPORT.items() if entry.exact} <= built.keys()
    assert {name for name, entry in mg.SUPPORT.items() if not entry.exact} <= errors.keys()


def trained(optimizer):
    """Adapts for two steps, and returns the loss and the meta-gradient, as training does for each problem."""
    batch = {"x": jnp.linspace(-1, 1, 12).reshape(4, 3), "y": jnp.ones((4, 2))}
    kernel = jnp.array([[0.5, 0.1], [0.3, -0.4], [-0.2, 0.6]])

    def losses(params, batch):
        return jnp.mean((batch["x"] @ (kernel + params["a"] @ params["b"]) - batch["y"]) ** 2, axis=1)

    start = {"a": jnp.ones((3, 2)) * jnp.array([0.3, -0.4]), "b": jnp.zeros((2, 2))}
    meta = jnp.array([0.3, 0.5, 0.7, 0.4])
    gradient = jax.jit(
        lambda meta: mg.meta_gradient(
            mg.WeightedLoss(losses), lambda params, batch: losses(params, batch).mean(), start, meta, batch,
            jax.tree.map(lambda leaf: leaf[:2], batch), optimizer=optimizer, num_steps=2,
            adjoint=mg.WeightedMixedMode(),
        ),
        compiler_options=FAST,
    )  # fmt: skip
    return gradient(meta)


def check_and_train(names):
    """Checks each optimizer as training does; returns those with a finite meta-gradient, and refusals."""
    built, errors = build_all(names)
    fine = []
    for name, optimizer in built.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mg.ScaleInvariantWarning)
            try:
                mg.check_optimizer(optimizer)
            except UserError as error:
                errors[name] = str(error)
                continue
        found = trained(optimizer)
        assert jnp.isfinite(found.value), name
        assert jnp.isfinite(found.meta).all(), name
        assert jnp.abs(found.meta).max() > 0, name
        fine.append(name)
    assert all("\n" not in error for error in errors.values())
    return fine, errors


def test_some_optimizers_train_or_are_refused():
    fine, errors = check_and_train(["sgd", "contrib.cocob", "contrib.momo"])
    assert fine == ["sgd"]
    assert "wrong at" in errors["contrib.cocob"]
    assert "update needs 'value'" in errors["contrib.momo"]


@pytest.mark.slow
def test_every_optax_function_trains_or_is_refused():
    """Takes about four minutes."""
    fine, errors = check_and_train(support.factories())
    assert len(fine) + len(errors) == len(support.factories())
    assert {name for name, entry in mg.SUPPORT.items() if entry.exact} <= set(fine)
