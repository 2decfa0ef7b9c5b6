"""Commands; run each from a checkout with `python -m experiments.NAME`."""

import sys

from experiments import streams
from mass_jax import lazy

streams.repair()
try:
    lazy.require_extra(__name__, "train")
except lazy.MissingExtraError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None
