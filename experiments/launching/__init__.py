"""Launcher support: recipes for clouds and clusters, validation of launches, TPU topologies and prices."""
