"""Named configurations, one file each; docstrings state command, cost and expected result."""
