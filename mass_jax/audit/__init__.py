"""The tamper-evident event log: a hash chain of JSON lines, text storage, answer files, HTML page. No JAX."""
