"""HTTP server of the adaptation service: bounded queue, streamed answers, events by id, and a page for browsers."""

from mass_jax import lazy

lazy.require(__name__, "h11", "starlette", "uvicorn")
