"""What the daemon hands over to those who give pods their addresses: subnet.env, and the CNI configuration.

Both are there as long as the subnet is this node's and the kernel is ready for it, and both go when it is lost;
the footprint remembers them for `cleanup`.
"""

from __future__ import annotations

from functools import partial

from overlayd.core.decide import Decision, Publication
from overlayd.core.network.addresses import Subnet
from overlayd.core.network.config import NetworkConfig
from overlayd.core.publish.cni import format_conflist
from overlayd.core.publish.subnet_env import format_subnet_env
from overlayd.core.status.problem import Problem
from overlayd.host.cleanup_state import CleanupStateFile
from overlayd.host.conflist import ConflistFile
from overlayd.host.subnet_file import SubnetFile


class CniPublisher:
    """`conflist` is None where no runtime is to be told anything."""

    def __init__(
        self, subnet_file: SubnetFile, conflist: ConflistFile | None, cleanup_state: CleanupStateFile
    ) -> None:
        self._subnet_file = subnet_file
        self._conflist = conflist
        self._cleanup_state = cleanup_state
        self._troubles: tuple[Problem, ...] = ()

    def find_subnet(self) -> Subnet | None:
        """Find the subnet that was handed over last, perhaps by an earlier life."""
        return self._subnet_file.find_subnet()

    def carry_out(self, outcome: Publication, decision: Decision, *, ipmasq: bool) -> tuple[Problem, ...]:
        """Publish, withdraw or leave alone what runtimes read; the problems that kept it from being done."""
        view = decision.view
        if outcome is Publication.WITHDRAW:
            self._troubles = self.withdraw()
        elif outcome is Publication.PUBLISH and view is not None and view.own is not None:
            self._troubles = self.publish(view.config, view.own, view.mtu, ipmasq=ipmasq)
        return self._troubles

    def publish(self, config: NetworkConfig, subnet: Subnet, mtu: int, *, ipmasq: bool) -> tuple[Problem, ...]:
        """Publish `subnet` to the CNI plugins; return the problems that prevent it."""
        text = format_subnet_env(config, subnet, mtu, ipmasq)
        troubles = self._subnet_file.ensure(text)
        if self._conflist is None:
            return (*troubles, *self._cleanup_state.note(subnet_file=text, subnet=subnet))
        told = self._conflist.ensure(partial(format_conflist, config, subnet, mtu))
        path = str(self._conflist.path)
        noted = self._cleanup_state.note(subnet_file=text, conflist=path, subnet=subnet)
        return (*troubles, *told, *noted)

    def withdraw(self) -> tuple[Problem, ...]:
        """Withdraw the subnet: no pod may get an address any more."""
        troubles = self._subnet_file.ensure(None)
        told = self._conflist.withdraw() if self._conflist is not None else ()
        return (*troubles, *told, *self._cleanup_state.note(subnet_file=""))
