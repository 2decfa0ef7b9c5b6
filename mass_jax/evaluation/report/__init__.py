"""Report of a run, built from its records alone: results table, figures and qualitative examples. Imports no JAX."""

from mass_jax.evaluation.report.build import write_report

__all__ = ["write_report"]
