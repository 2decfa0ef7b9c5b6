"""Other implementations of the same meta-gradient, for `experiments.bench_metagrad`."""
