"""Serving: answers questions by adapting to each of them, behind guards, with an audit log and exact replay.

    service = serving.load("runs/tiny")
    answers = service(["4 kabo 3"])

`load` makes an `AdaptationService`. `guards` holds the checks of an update, `replay` recomputes an adapter from its
log record.
"""

from typing import TYPE_CHECKING

from mass_jax import lazy

if TYPE_CHECKING:
    from mass_jax.serving import guards, replay
    from mass_jax.serving.guards.policy import Policy
    from mass_jax.serving.loading import load
    from mass_jax.serving.service import AdaptationService, Answer, Question, WeightsChanged

__all__ = ["AdaptationService", "Answer", "Policy", "Question", "WeightsChanged", "guards", "load", "replay"]
__getattr__, __dir__, _ = lazy.attach(
    __name__,
    {
        "AdaptationService": "service",
        "Answer": "service",
        "Policy": "guards.policy",
        "Question": "service",
        "WeightsChanged": "service",
        "guards": "guards",
        "load": "loading",
        "replay": "replay",
    },
)
lazy.require(__name__, "absl", "orbax", "pydantic")
