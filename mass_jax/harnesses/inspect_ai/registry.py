"""Registers the provider, which Inspect imports only when a model of it is named."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="mass_jax")
def mass_jax() -> type[ModelAPI]:
    """Returns the provider."""
    from mass_jax.harnesses.inspect_ai.provider import MassJaxAPI

    return MassJaxAPI
