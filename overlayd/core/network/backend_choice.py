"""From a network config to the backend that it names, with the options that this backend reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from overlayd.core.leases.book import StoredConfig
from overlayd.core.network.addresses import Family
from overlayd.core.network.backend import Backend, BackendOptionError
from overlayd.core.network.config import ConfigError, ConfigFault, NetworkConfig, member_name, parse_config
from overlayd.core.status.problem import Problem
from overlayd.core.text.strict_json import quoted


@dataclass(frozen=True, slots=True)
class Network:
    """A sound network config as it was read, and the backend that it asks for."""

    record: StoredConfig
    config: NetworkConfig
    backend: Backend


def read_network(
    record: StoredConfig | None, known: Network | None, backends: Mapping[str, type[Backend]], key: str
) -> tuple[Network | None, tuple[Problem, ...]]:
    """Read the config that stands at `key`, or keep to the one `known` and say what is wrong with the new one."""
    if record is None:
        return known, (
            Problem("no-config", f"there is no network config at {key}", "Write one: `overlayd config set FILE`"),
        )
    if known is not None and known.record == record:
        return known, ()
    try:
        config = parse_config(record.value)
        return Network(record, config, check_backend(config, backends)), ()
    except ConfigError as error:
        faults = "; ".join(str(error).splitlines())
        return known, (
            Problem(
                "config-invalid",
                f"the network config at {key} can't be used: {faults}",
                "Correct it: `overlayd config check FILE`, then `overlayd config set FILE`",
            ),
        )


def check_backend(config: NetworkConfig, backends: Mapping[str, type[Backend]]) -> Backend:
    """Check the backend that the config names, with its options.  Raises ConfigError, also for a config that
    is sound and asks for more than overlayd can carry."""
    backend = backends.get(config.backend_type)
    if backend is None:
        known = ", ".join(sorted(backends)) or "none"
        fault = ConfigFault(
            "Backend.Type", quoted(config.backend_type), "is no backend that is installed", f"installed: {known}"
        )
        raise ConfigError([fault])
    if not_carried := [span.family for span in config.ranges if span.family not in backend.families]:
        raise ConfigError([_not_carried(family, backend) for family in not_carried])
    try:
        return backend.parse(config.options)
    except BackendOptionError as error:
        spelled = next((key for key, _ in config.backend_options if key.lower() == error.key.lower()), error.key)
        fault = ConfigFault(
            f"Backend.{spelled}",
            "",
            str(error).removeprefix(f"Backend.{error.key}: "),
            f"leave it out for the default of {config.backend_type}",
        )
        raise ConfigError([fault]) from error


def _not_carried(family: Family, backend: type[Backend]) -> ConfigFault:
    carried = " and ".join(f"IPv{each.version}" for each in sorted(backend.families))
    return ConfigFault(
        f"EnableIPv{family.version}",
        "",
        f"IPv{family.version} is not carried yet by {backend.kind}",
        f"enable {carried} alone: leave the IPv{family.version} keys out",
    )


def unknown_options(config: NetworkConfig, backend: Backend) -> tuple[str, ...]:
    """Return a warning for each option that the backend does not know."""
    known = {key.lower() for key in backend.options}
    reads = ", ".join(sorted(backend.options)) or "no options"
    return tuple(
        f"Backend.{member_name(key)} is unknown and has no effect: {config.backend_type} reads {reads}"
        for key, _ in config.backend_options
        if key.lower() not in known
    )
