"""Launcher support: validation of launches and TPU topologies."""
