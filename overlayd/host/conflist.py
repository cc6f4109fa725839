"""The CNI configuration file: there while this node can give pods a network, and only then.

It is compared with what it should say each time, so a file that somebody removed or edited comes back, plugins
that are installed later are taken in, and a directory that appears later is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from overlayd.core.publish.cni import FILE_NAME, NEEDED, PLUGINS, judge_neighbours, judge_plugins
from overlayd.core.status.problem import Problem
from overlayd.host.files import find_bytes, write_atomically


class ConflistFile:
    """In the directory that container runtimes read; `bin_dir` is where their plugins are."""

    def __init__(self, conf_dir: Path, bin_dir: Path) -> None:
        self.path = conf_dir / FILE_NAME
        self._bin_dir = bin_dir

    def ensure(self, make: Callable[[frozenset[str]], str]) -> tuple[Problem, ...]:
        """Let the file say what `make` makes of the plugins that are installed.

        Where a plugin is missing without which no pod can have a network, there is no file either: the runtime
        then calls the node not ready, instead of failing with each pod.
        """
        present = frozenset(name for name in PLUGINS if os.access(self._bin_dir / name, os.X_OK))
        troubles = judge_plugins(present, str(self._bin_dir))
        if not present.issuperset(NEEDED):
            return (*troubles, *self.withdraw())
        try:
            names = os.listdir(self.path.parent)  # first of all: a missing directory is not ours to make
            if find_bytes(self.path) != (text := make(present)).encode():
                write_atomically(self.path, text)
        except OSError as error:
            return (*troubles, self._unwritable(error))
        return (*troubles, *judge_neighbours(str(self.path.parent), names))

    def withdraw(self) -> tuple[Problem, ...]:
        try:
            self.path.unlink(missing_ok=True)
        except NotADirectoryError:
            return ()
        except OSError as error:
            return (self._unwritable(error),)
        return ()

    def _unwritable(self, error: OSError) -> Problem:
        return Problem(
            "cni-unwritable",
            f"{self.path} can't be written: {error.strerror}",
            "New pods need it: make the directory, or make it writable, or choose another with --cni-conf-dir",
        )
