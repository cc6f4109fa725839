"""Which worlds are searched: tiny networks, and budgets that bring one kind of trouble or several."""

from __future__ import annotations

from support.model.world import Budget, ModelScenario


def _network(length: int, first: str, last: str, more: str = "") -> str:
    return f'{{"Network":"10.244.0.0/22","SubnetLen":{length},"SubnetMin":"{first}","SubnetMax":"{last}"{more}}}'


def _pairs(first6: int) -> str:
    """Two subnets, the first of which goes with this one of IPv6."""
    more = (
        ',"EnableIPv6":true,"IPv6Network":"fd00:1::/61","IPv6SubnetLen":64,'
        f'"IPv6SubnetMin":"fd00:1:0:{first6}::","IPv6SubnetMax":"fd00:1:0:{first6 + 1}::"'
    )
    return _network(24, "10.244.1.0", "10.244.2.0", more)


ONE = _network(24, "10.244.1.0", "10.244.1.0")
TWO = _network(24, "10.244.1.0", "10.244.2.0")
HALVES = _network(25, "10.244.1.0", "10.244.1.128")
"""The first of TWO, cut in two."""
PAIRS, CROSSED = _pairs(1), _pairs(2)
"""Each pair of CROSSED overlaps two of PAIRS, one by each half."""

# Lost, ambiguous and late answers, crashes and slow clocks.
TROUBLE = Budget(faults=1, lose=1, ambiguous=1, linger=1, duplicate=1, crash=1, slip=1, lag=1)

EVERYDAY = (
    ModelScenario("every message on its own", (ONE,), Budget(end=1), nodes=2),
    ModelScenario(
        "a keepalive twice, a slow clock", (ONE,), Budget(faults=1, duplicate=1, slip=1, end=1), nodes=2
    ),
    ModelScenario("trouble", (ONE,), TROUBLE._replace(end=1), nodes=2, brisk=True),
    ModelScenario("three nodes, one subnet", (ONE,), Budget(end=1), brisk=True),
    ModelScenario("three nodes, two subnets", (TWO,), Budget(), brisk=True),
    ModelScenario("other lengths", (TWO, HALVES), Budget(configure=1), nodes=2, brisk=True),
    ModelScenario("other pairs", (PAIRS, CROSSED), Budget(configure=1), nodes=2, brisk=True),
    ModelScenario(
        "a reservation", (ONE,), Budget(end=1, reserve=1), nodes=2, brisk=True, reservable=("10.244.1.0/24",)
    ),
    ModelScenario(
        "a lease overwritten by hand", (ONE,), Budget(overwrite=1, end=1), nodes=2, recorded=False, brisk=True
    ),
    ModelScenario("a config that is not sound", (ONE,), Budget(misconfigure=1, end=1), nodes=2, brisk=True),
    ModelScenario("an unfit host", (ONE,), Budget(unfit=2, end=1), nodes=2, brisk=True),
)
"""Each kind of trouble in some world that is searched to its end, all within a minute."""

LONG = (
    ModelScenario("every message on its own, a longer TTL", (ONE,), Budget(end=1), ttl=40, nodes=2),
    ModelScenario("every message on its own, two subnets", (TWO,), Budget(end=1), nodes=2),
    ModelScenario("every message on its own, in trouble", (ONE,), TROUBLE._replace(end=1), nodes=2),
    ModelScenario("trouble, two subnets", (TWO,), TROUBLE._replace(end=1), nodes=2, brisk=True),
    ModelScenario("longer, then shorter", (TWO, HALVES), Budget(configure=1, end=1), nodes=2, brisk=True),
    ModelScenario("shorter, then longer", (HALVES, TWO), Budget(configure=1, end=1), nodes=2, brisk=True),
    ModelScenario("other pairs, and an end", (PAIRS, CROSSED), Budget(configure=1, end=1), nodes=2, brisk=True),
    ModelScenario(
        "reservations", (TWO,), Budget(reserve=2, end=1), nodes=2, brisk=True, reservable=("10.244.1.0/24",)
    ),
    ModelScenario(
        "a lease of two overwritten", (TWO,), Budget(overwrite=1, end=1), nodes=2, recorded=False, brisk=True
    ),
    ModelScenario(
        "unfit hosts that restart",
        (TWO,),
        Budget(unfit=2, end=1, faults=1, crash=1, linger=1),
        nodes=2,
        brisk=True,
    ),
    ModelScenario(
        "overwritten, in trouble",
        (ONE,),
        TROUBLE._replace(overwrite=1, end=1),
        nodes=2,
        recorded=False,
        brisk=True,
    ),
    ModelScenario("an unsound config, two subnets", (TWO,), Budget(misconfigure=1, end=1), nodes=2, brisk=True),
    ModelScenario("three nodes, two subnets, an end", (TWO,), Budget(end=1), brisk=True),
    ModelScenario("three nodes in trouble", (ONE,), TROUBLE._replace(end=1), brisk=True),
    ModelScenario("two faults", (ONE,), TROUBLE._replace(faults=2, end=1), nodes=2, brisk=True),
    ModelScenario("three nodes, other lengths", (TWO, HALVES), Budget(configure=1), brisk=True),
)
"""Searched to the end as well, up to a few minutes each."""

DEEP = (
    ModelScenario("three nodes, other pairs", (PAIRS, CROSSED), Budget(configure=1), brisk=True),
    ModelScenario("other lengths in trouble", (TWO, HALVES), TROUBLE._replace(configure=1), nodes=2, brisk=True),
    ModelScenario("there and back", (HALVES, TWO, HALVES), Budget(configure=2, end=1), nodes=2, brisk=True),
    ModelScenario(
        "two faults, two ends", (ONE,), TROUBLE._replace(faults=2, end=2, rewrite=1), nodes=2, brisk=True
    ),
    ModelScenario("three nodes, two subnets, in trouble", (TWO,), TROUBLE._replace(end=1), brisk=True),
    ModelScenario("every message on its own, all at once", (TWO,), TROUBLE._replace(end=1), ttl=40, nodes=2),
)
"""As far as a search gets: `make model` says how far."""

RESTORED = ModelScenario(
    "a restored store", (ONE,), Budget(restore=1, ticks=5), nodes=2, recorded=False, brisk=True
)
"""Outside the promise: what freezing the claims is worth.  No lease ends.

Here no two revisions are alike, and a node whose belief ended writes its record again and again: without an
end to the time there would be none to the states.
"""
