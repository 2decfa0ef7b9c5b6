"""Settings that all tests of adapting models share, so that they compile once."""

BATCH, SEED = 4, 3
