"""Families that fit small models.

Of the 106 families of reasoning-gym 0.1.25, those in `FITTING` have, at level "easy", questions of at most 96 tokens
and one-line answers of at most 16 tokens of SmolLM2's tokenizer, and enough distinct problems. Others can be named too.
The bank refuses those without a text answer, and those that the package can score only by evaluating the answer.
"""

FITTING = (
    "aiw", "base_conversion", "basic_arithmetic", "bf", "calendar_arithmetic", "chain_sum", "complex_arithmetic",
    "count_bits", "count_primes", "decimal_arithmetic", "decimal_chain_sum", "dice", "family_relationships",
    "fraction_simplification", "gcd", "isomorphic_strings", "lcm", "leg_counting", "letter_counting",
    "number_sequence", "prime_factorization", "products", "simple_equations", "spell_backward", "syllogism",
    "time_intervals",
)  # fmt: skip
"""Families with short questions and answers at level "easy"."""
