"""Measurements of the `bench_*` commands, whose modules hold flags, tables and figures."""
