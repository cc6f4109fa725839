"""Finds what is installed: the backends in the entry point group `overlayd.backends`, and in `overlayd.datapaths`
the userspace datapaths that some of them need."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from overlayd.core.kernel.datapath import OpenDatapath
from overlayd.core.network.backend import Backend

BACKENDS = "overlayd.backends"
DATAPATHS = "overlayd.datapaths"


def load_backends() -> Mapping[str, type[Backend]]:
    """Every installed backend by the `Type` that the network config calls it."""
    loaded: dict[str, type[Backend]] = {}
    for point in entry_points(group=BACKENDS):
        backend: type[Backend] = point.load()
        loaded[backend.kind] = backend
    return loaded


def load_datapaths() -> Mapping[str, OpenDatapath]:
    """Every installed datapath by the device that it serves: `ovl.` and the name of its entry point."""
    return {f"ovl.{point.name}": point.load() for point in entry_points(group=DATAPATHS)}
