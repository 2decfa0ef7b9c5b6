"""What a run leaves to look at: table, figures and worked examples, rebuilt from its records alone. No JAX."""

from mass_jax.report.build import write_report

__all__ = ["write_report"]
