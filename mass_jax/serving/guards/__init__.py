"""Guards of test-time updates: gates on examples, bounds on updates, regression suite, policy."""
