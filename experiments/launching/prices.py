"""On-demand prices of TPU chips, for the cost per hour that a recipe prints."""

import math

from experiments.launching.topologies import topology_shape

# US dollars per chip and hour, on demand, in the US regions with the lowest price (v4: us-central2). Other regions cost
# up to 1.4 times as much, and prices of spot capacity change. TPU7x has no price in the source.
PRICES = {"v4": 3.22, "v5e": 1.20, "v5p": 4.20, "v6e": 2.70}
SOURCE = "SkyPilot's catalog of Google Cloud (catalogs/v8/gcp/vms.csv, commit 006059e)"
CHECKED = "2026-11-27"


def tpu_cost(topology: str, num_slices: int, price: float | None = None, spot: bool = False) -> str:
    """Returns one line with the cost per hour of TPU slices.

    Args:
        topology: such as v5e:4x4.
        num_slices: number of slices of that topology.
        price: US dollars per chip and hour; None takes the on-demand price of `PRICES`.
        spot: whether the capacity is preemptible, whose price must be given.

    >>> tpu_cost("v5e:4x4", 1, price=0.5)
    '16 chips x $0.50 = $8.00 per hour'
    """
    chip, sides = topology_shape(topology)
    count = math.prod(sides) * num_slices
    if price is not None:
        return cost(count, price)
    if chip not in PRICES:
        return f"{count} chips of {chip}, whose price is unknown; give --price_per_chip_hour"
    note = f"on demand, in the cheapest US region, from {SOURCE}, read on {CHECKED}"
    if spot:
        note += "; spot capacity costs less: give --price_per_chip_hour"
    return f"{cost(count, PRICES[chip])} ({note})"


def cost(count: int, price: float | None) -> str:
    """Returns one line with the cost per hour of a number of chips.

    >>> cost(8, None)
    '8 chips, whose price is unknown; give --price_per_chip_hour'
    """
    chips = "1 chip" if count == 1 else f"{count} chips"
    if price is None:
        return f"{chips}, whose price is unknown; give --price_per_chip_hour"
    return f"{chips} x ${price:.2f} = ${count * price:,.2f} per hour"
