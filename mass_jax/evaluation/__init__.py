"""Evaluates every method, keeps records and builds the report."""
