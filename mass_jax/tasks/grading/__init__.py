"""Grades final answers in mathematics: reads, compares and, in worker processes, proves equality."""
