"""What the `bench_*` commands measure, apart from their flags, tables and figures."""
