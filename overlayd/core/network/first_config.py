"""The network config that a daemon writes to a store that has none yet."""

from __future__ import annotations

from dataclasses import dataclass

from overlayd.core.network.config import NetworkConfig, parse_config
from overlayd.core.status.problem import Problem


@dataclass(frozen=True, slots=True)
class FirstConfig:
    """The file's name, and its content, which is known to be sound."""

    file: str
    value: bytes

    def differs_from(self, config: NetworkConfig, key: str) -> tuple[Problem, ...]:
        """Name the difference between the config in force and the file."""
        if parse_config(self.value) == config:
            return ()
        return (
            Problem(
                "config-differs",
                f"the network config in {self.file} is not the one in force, which stands at {key}",
                f"Take the file's: `overlayd config set {self.file}`; or make the file say what is in force: "
                "`overlayd config show`",
            ),
        )
