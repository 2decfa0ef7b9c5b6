"""Workdirs in buckets: a run works in a local directory, whose files are copied to gs:// or s3:// in the background."""

from mass_jax import lazy

lazy.require(__name__, "fsspec")
