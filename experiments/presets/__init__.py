"""Named settings, one file each; a docstring states command, cost and expected result."""
