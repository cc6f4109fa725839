"""Finds the backends that are installed: everything in the entry point group `overlayd.backends`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from overlayd.core.backend import Backend

GROUP = "overlayd.backends"


def load_backends() -> Mapping[str, type[Backend]]:
    """Every installed backend by the `Type` that the network config calls it."""
    loaded: dict[str, type[Backend]] = {}
    for point in entry_points(group=GROUP):
        backend: type[Backend] = point.load()
        loaded[backend.kind] = backend
    return loaded
