"""Grading of final answers in mathematics: parsing, comparison and, in worker processes, symbolic equality."""
