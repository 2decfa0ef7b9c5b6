"""Test-time change events: a hash-chained log, gates, bounds, permission, replay and a page to look at.

`chain`, `gates`, `bounds`, `policy` and `events` are pure; `log` owns the files,
`stages` and `replay` the arrays. `batch` runs them in order, `solver` grants, records and
releases; `mass_jax.solve` makes a solver.
"""
