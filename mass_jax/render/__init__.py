"""HTML templates and figure style shared by the report, the audit page, the plans and the benchmarks.

Imports nothing else of the package, neither JAX nor a plotting backend.
"""
