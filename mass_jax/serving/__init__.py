"""Answers questions with per-question adaptation: guards, records and replay."""
