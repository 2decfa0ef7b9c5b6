"""The tamper-evident event log: a hash chain of JSON lines, its texts, answers and page. Imports no JAX."""
