"""The MASS algorithm as pure functions: generate, score, adapt, outer loss, policy gradient and meta-step."""
