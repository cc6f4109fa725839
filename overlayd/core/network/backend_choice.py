"""From a network config to the backend that it names, with the options that this backend reads."""

from __future__ import annotations

from collections.abc import Mapping

from overlayd.core.network.addresses import Family
from overlayd.core.network.backend import Backend, BackendOptionError
from overlayd.core.network.config import ConfigError, ConfigFault, NetworkConfig, member_name
from overlayd.core.text.strict_json import quoted


def check_backend(config: NetworkConfig, backends: Mapping[str, type[Backend]]) -> Backend:
    """The backend that the config names, with its options.  Raises ConfigError, also for a config that is sound
    and asks for more than overlayd can carry."""
    if [span.family for span in config.ranges] != [Family.IPV4]:
        carried = ConfigFault(
            "EnableIPv6", "", "IPv6 is not carried yet", "enable IPv4 alone: leave the IPv6 keys out"
        )
        raise ConfigError([carried])
    backend = backends.get(config.backend_type)
    if backend is None:
        known = ", ".join(sorted(backends)) or "none"
        fault = ConfigFault(
            "Backend.Type", quoted(config.backend_type), "is no backend that is installed", f"installed: {known}"
        )
        raise ConfigError([fault])
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


def unknown_options(config: NetworkConfig, backend: Backend) -> tuple[str, ...]:
    """A warning for each option that the backend does not know."""
    known = {key.lower() for key in backend.known()}
    reads = ", ".join(sorted(backend.known())) or "no options"
    return tuple(
        f"Backend.{member_name(key)} is unknown and has no effect: {config.backend_type} reads {reads}"
        for key, _ in config.backend_options
        if key.lower() not in known
    )
