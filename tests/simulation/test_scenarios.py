"""Whole clusters live through faults drawn from seeds, and keep every invariant."""

from __future__ import annotations

import random

import pytest

from overlayd.testing.simulation.many import explain_seeds, run_seeds
from overlayd.testing.simulation.report import explain
from overlayd.testing.simulation.run import run_scenario
from overlayd.testing.simulation.scenario import Fault, Scenario, draw_scenario


def test_two_hundred_episodes_keep_every_promise() -> None:
    failed = [seed for seed, invariant in run_seeds(range(200)) if invariant]
    assert not failed, f"seeds {failed}\n" + "\n".join(explain_seeds(failed[:2]))


@pytest.mark.parametrize("seed", [947, 967, 1189, 3103])
def test_what_went_wrong_once(seed: int) -> None:
    """A store restored from before the last start of some daemon, whose old record was taken for a stranger's; a
    reservation that a new config has no room for."""
    outcome = run_scenario(draw_scenario(seed))
    assert outcome.breach is None, explain(outcome)


@pytest.mark.parametrize("holder", [1, 2])
def test_a_restore_by_the_book_gives_no_subnet_twice(holder: int) -> None:
    """The backup knows of a holder who lost the only subnet since, to one who can't hear of the restore."""
    salt = next(salt for salt in range(100) if random.Random(f"fault {salt}").random() < 0.5)
    faults = (
        Fault("etcd-restore", 40.0, 160.0, 1, salt),
        Fault("daemon-kill", 45.0, 120.0, holder, 0),
        Fault("partition", 195.0, 100.0, 3 - holder, 1),
    )
    outcome = run_scenario(Scenario(0, 2, 60, 1, faults))
    assert outcome.breach is None, explain(outcome)


@pytest.mark.parametrize("nodes", [60, pytest.param(200, marks=pytest.mark.long)])
def test_a_large_cluster_keeps_every_promise(nodes: int) -> None:
    """All claim at once, 200 of them for 255 subnets; then what concerns everybody, or makes everybody look."""
    faults = (
        Fault("etcd-outage", 40.0, 20.0, 1, 1),
        Fault("daemon-kill", 65.0, 10.0, 2, 2),
        Fault("etcd-wiped-watch", 70.0, 20.0, 3, 3),
        Fault("lease-revoked", 75.0, 1.0, 4, 4),
        Fault("address-changed", 80.0, 1.0, 5, 5),
        Fault("stop", 90.0, 60.0, 6, 6),
    )
    outcome = run_scenario(Scenario(0, nodes, 600, None, faults), look=15.0)
    assert outcome.breach is None, explain(outcome, look=15.0)
