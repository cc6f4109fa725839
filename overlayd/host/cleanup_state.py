"""What a daemon leaves on a host beyond what the kernel can show to be ours, so that `cleanup` can find it.

Kept in the run directory, which is gone after a reboot just as the kernel's state is: the interfaces by which
direct routes of ours may go, the subnet file as it was written (flannel may have one at the same path), and the
path of the CNI configuration.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from overlayd.core.network.addresses import Subnet
from overlayd.core.status.problem import Problem
from overlayd.host.files import find_text, write_atomically

NAME = "footprint.json"


class CleanupState(msgspec.Struct, frozen=True):
    """`links` are interfaces that were the underlay's; `subnet_file` is the text last written, "" for none;
    `conflist` is where the CNI configuration was written, "" for nowhere; `subnets` are all that were
    published."""

    links: tuple[str, ...] = ()
    subnet_file: str = ""
    conflist: str = ""
    subnets: tuple[str, ...] = ()


class CleanupStateFile:
    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / NAME
        self.known = self._load()

    def _load(self) -> CleanupState:
        """Load the state; a file that can't be read is no worse than none."""
        try:
            known = msgspec.json.decode(find_text(self.path) or "{}", type=CleanupState)
            for text in known.subnets:
                Subnet.parse(text)
        except (OSError, ValueError):
            return CleanupState()
        return known

    @property
    def given(self) -> tuple[Subnet, ...]:
        """Every subnet that this node has published since its host was started."""
        return tuple(Subnet.parse(text) for text in self.known.subnets)

    def note(
        self,
        *,
        link: str | None = None,
        subnet_file: str | None = None,
        conflist: str | None = None,
        subnet: Subnet | None = None,
    ) -> tuple[Problem, ...]:
        """Remember one thing more; the problem that kept it from being written down."""
        known = self.known
        noted = CleanupState(
            tuple(sorted({*known.links, *((link,) if link else ())})),
            known.subnet_file if subnet_file is None else subnet_file,
            known.conflist if conflist is None else conflist,
            tuple(sorted({*known.subnets, *((str(subnet),) if subnet is not None else ())})),
        )
        if noted == self.known and self.path.exists():
            return ()
        self.known = noted
        try:
            write_atomically(self.path, msgspec.json.encode(noted).decode() + "\n")
        except OSError as error:
            return (
                Problem(
                    "run-dir-unwritable",
                    f"{self.path} can't be written: {error.strerror}",
                    "Make the directory writable (--run-dir), or cleanup may overlook something",
                ),
            )
        return ()
