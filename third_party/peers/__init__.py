"""Other people's ways to the same meta-gradient, on the same weights and batch, for `experiments.bench_metagrad`."""
