"""Ends the daemon when this node has got another subnet than before, where the operator asked for that."""

from __future__ import annotations

from overlayd.core.leases.tenure import Belief, Tenure
from overlayd.core.network.addresses import Subnet


class SubnetChanged(Exception):
    """This node has another subnet than before, and is to end because of that."""


class SubnetGuard:
    def __init__(self, *, exit_on_new_subnet: bool) -> None:
        self._exit_on_new_subnet = exit_on_new_subnet
        self._first: Subnet | None = None

    def note(self, tenure: Tenure, now: float) -> None:
        """Compare with the first subnet of this life, at `now` seconds of CLOCK_BOOTTIME.  Raises
        SubnetChanged."""
        if tenure.served is None or tenure.belief(now) is not Belief.HELD:
            return
        subnet = tenure.served.subnet
        self._first = self._first or subnet
        if subnet != self._first and self._exit_on_new_subnet:
            raise SubnetChanged(f"this node's subnet was {self._first} and is {subnet} now")
