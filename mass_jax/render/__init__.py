"""HTML templates and figure style shared by the report, the audit page, the plans and the benchmarks.

Imports nothing else of the package, neither JAX nor a plotting backend.
"""

from mass_jax import lazy

lazy.require(__name__, "jinja2", "matplotlib")
