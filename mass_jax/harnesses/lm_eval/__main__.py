"""The command `lm_eval` with the model `mass_jax`, which lm-evaluation-harness cannot discover by itself."""

import sys

from lm_eval.__main__ import cli_evaluate

from mass_jax.errors import UserError, first_line
from mass_jax.harnesses.lm_eval import model as model  # registers it

if __name__ == "__main__":
    try:
        cli_evaluate()
    except UserError as error:
        sys.stderr.write(f"error: {first_line(error)}\n")
        sys.exit(2)
