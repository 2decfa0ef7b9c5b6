"""Models for evaluation harnesses: lm-evaluation-harness and Inspect, without adaptation or adapting to each question.

`opening.open_model` makes either model from the arguments that a harness passes; `lm_eval` and `inspect_ai` implement
the interfaces of the harnesses.
"""
