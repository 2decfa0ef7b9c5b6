"""Checks of a launch: what would be refused on the machines is refused before anything is printed."""
