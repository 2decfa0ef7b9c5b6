"""MASS (test-time Meta-Adaptation with Self-Synthesis) in JAX: exact meta-gradients at the cost of a gradient."""
