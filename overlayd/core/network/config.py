"""The network config of the cluster: one JSON object, read whole or refused with everything that is wrong in it.

The rules are flannel's, so that one config serves both: keys match in any case, networks are masked, a missing
length or bound gets flannel's default.  overlayd is stricter where flannel would start and then not work:

- SubnetMin must not lie after SubnetMax, and no network may reach into loopback, link-local or multicast space;
- values have their own type: no number as text, no text as number;
- no config without any family.

And it says more: an unknown, repeated or ineffective key is a warning, never silence.  Without a `Backend`
overlayd runs vxlan, as flannel's documentation says (flannel's code runs udp).

What the options in `Backend` mean is the backend's business: `check_backend` in `backend_choice` asks it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from overlayd.core.network.addresses import Family, IPAddress, IPNetwork
from overlayd.core.text.strict_json import QUOTE_LIMIT, JsonError, folded, parse_json, quoted

DEFAULT_BACKEND = "vxlan"
TOLD = 20
"""Faults or warnings that are told one by one; the rest are counted."""

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing that is wrong in a config: the key as it was spelled ("the config" where it is the whole), its
    value ("" where there is none), why that won't do, and what would be right."""

    key: str
    value: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key} {self.value}".strip() + f": {self.reason}; {self.remedy}"


class ConfigError(ValueError):
    """The network config can't be used; `faults` are all the reasons, the message has one a line."""

    def __init__(self, faults: Iterable[ConfigFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(_shortened(self.faults, "faults")))


@dataclass(frozen=True, slots=True)
class Range:
    """The subnets to lease in one family: the prefixes of `subnet_len` from address `first` to address `last`."""

    network: IPNetwork
    subnet_len: int
    first: IPAddress
    last: IPAddress

    @property
    def family(self) -> Family:
        return Family.IPV4 if self.network.version == 4 else Family.IPV6

    @property
    def step(self) -> int:
        """Addresses per subnet."""
        return 1 << (self.network.max_prefixlen - self.subnet_len)

    @property
    def capacity(self) -> int:
        """Subnets in the range: 255 for a /16 cut into /24, as the first one is skipped by default."""
        return (int(self.last) - int(self.first)) // self.step + 1


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A whole and valid network config.  `ranges` has one entry per enabled family, IPv4 first.

    `backend_options` holds the members of `Backend` but `Type`, as spelled.  `warnings` are sentences about
    what is in the text but has no effect, or another effect than one might think.
    """

    ranges: tuple[Range, ...]
    backend_type: str = DEFAULT_BACKEND
    backend_options: tuple[tuple[str, Scalar], ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def range_of(self, family: Family) -> Range | None:
        return next((span for span in self.ranges if span.family is family), None)

    @property
    def options(self) -> dict[str, object]:
        """The backend's options as `Backend.parse` takes them: keys in lower case."""
        return {key.lower(): value for key, value in self.backend_options}

    @property
    def capacity(self) -> int:
        """How many nodes can have a subnet (of each family, where there are two)."""
        return min(span.capacity for span in self.ranges)


@dataclass(frozen=True, slots=True)
class _Rules:
    """One family's keys and bounds in the table of flannel's config."""

    family: Family
    enable: str
    network: str
    subnet_len: str
    subnet_min: str
    subnet_max: str
    address: type[IPv4Address | IPv6Address]
    cidr: type[IPv4Network | IPv6Network]
    example: str
    longest: int
    """The longest SubnetLen: four addresses per subnet."""
    usual: int
    """The SubnetLen of a network that is large enough for four of them."""
    unusable: tuple[IPNetwork, ...]
    """RFC 6890 and its registries: space in which no packet is forwarded between hosts."""

    @property
    def word(self) -> str:
        return self.enable.removeprefix("Enable")

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.network, self.subnet_len, self.subnet_min, self.subnet_max)


_FAMILIES = (
    _Rules(
        Family.IPV4,
        "EnableIPv4",
        "Network",
        "SubnetLen",
        "SubnetMin",
        "SubnetMax",
        IPv4Address,
        IPv4Network,
        "10.244.0.0/16",
        longest=30,
        usual=24,
        unusable=tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"))),
    ),
    _Rules(
        Family.IPV6,
        "EnableIPv6",
        "IPv6Network",
        "IPv6SubnetLen",
        "IPv6SubnetMin",
        "IPv6SubnetMax",
        IPv6Address,
        IPv6Network,
        "fd00:10:244::/48",
        longest=126,
        usual=64,
        unusable=tuple(map(IPv6Network, ("::/16", "fe80::/10", "ff00::/8"))),
    ),
)
_KNOWN = {key.lower() for rules in _FAMILIES for key in (rules.enable, *rules.keys)} | {"backend"}


def parse_config(raw: bytes | str) -> NetworkConfig:
    """Read the JSON text of a network config.  Raises ConfigError with every fault that was found."""
    try:
        value, repeated = parse_json(raw)
    except JsonError as error:
        raise ConfigError([ConfigFault("the config", "", str(error), _SHAPE)]) from error
    if not isinstance(value, dict):
        raise ConfigError([ConfigFault("the config", "", f"is {_kind(value)}, not an object", _SHAPE)])
    return _Reading(value, repeated).finish()


_SHAPE = 'give a JSON object such as {"Network": "10.244.0.0/16"}'


@dataclass(frozen=True, slots=True)
class _Member:
    """A key as it was spelled, and its value; None where it is absent or null (the same to flannel, too)."""

    key: str
    value: object


class _Reading:
    """One config being read: gathers faults and warnings until all of it has been looked at."""

    def __init__(self, members: dict[str, object], repeated: tuple[str, ...]) -> None:
        self.members = folded(members)
        self.faults: list[ConfigFault] = []
        self.warnings = [f"{member_name(key)} is given more than once: the last one counts" for key in repeated]
        self.warnings += [
            f"{member_name(key)} is unknown and has no effect" for key in members if key.lower() not in _KNOWN
        ]

    def finish(self) -> NetworkConfig:
        ranges: list[Range | None] = []
        for rules in _FAMILIES:
            if self._flag(rules.enable, default=rules.family is Family.IPV4):
                ranges.append(self._range(rules))
            else:
                idle = [member.key for member in map(self._find, rules.keys) if member.value is not None]
                self.warnings += [f"{key} has no effect while {rules.enable} is false" for key in idle]
        if not ranges:
            self._fault(
                self._find(_FAMILIES[0].enable),
                "no address family is left",
                "set EnableIPv4 or EnableIPv6 to true",
            )
        backend_type, options = self._backend()
        if self.faults:
            raise ConfigError(self.faults)
        return NetworkConfig(
            tuple(span for span in ranges if span is not None),
            backend_type,
            options,
            tuple(_shortened(self.warnings, "warnings")),
        )

    def _range(self, rules: _Rules) -> Range | None:
        network = self._network(rules)
        length = self._length(rules, network)
        low = self._bound(rules.subnet_min, rules, network, length)
        high = self._bound(rules.subnet_max, rules, network, length)
        if network is None or length is None:
            return None
        step = 1 << (network.max_prefixlen - length)
        first = low or rules.address(int(network.network_address) + step)
        last = high or rules.address(int(network.broadcast_address) + 1 - step)
        if int(first) > int(last):
            self._fault(
                self._find(rules.subnet_min if low else rules.subnet_max),
                f"leaves no subnet between {first} and {last}",
                f"give a {rules.subnet_min} that is not after {rules.subnet_max}, or leave both out",
            )
        return Range(network, length, first, last)

    def _network(self, rules: _Rules) -> IPNetwork | None:
        member = self._find(rules.network)
        remedy = f"give a network such as {rules.example!r}"
        text = member.value
        if text is None:
            self._fault(member, f"is required while {rules.enable} is true", remedy)
            return None
        try:
            if not isinstance(text, str) or "%" in text:
                raise ValueError
            network = rules.cidr(text, strict=False)
            if not text.endswith(f"/{network.prefixlen}"):
                raise ValueError  # no length, or a netmask: flannel reads neither
        except ValueError:
            self._fault(member, f"is no {rules.word} network in CIDR notation", remedy)
            return None
        if (space := next(filter(network.overlaps, rules.unusable), None)) is not None:
            self._fault(member, f"reaches into {space}, in which no host forwards packets", remedy)
            return None
        if network.network_address != rules.address(text.partition("/")[0]):
            self.warnings.append(f"{member.key} {text} has host bits set: it is read as {network}")
        return network

    def _length(self, rules: _Rules, network: IPNetwork | None) -> int | None:
        member = self._find(rules.subnet_len)
        length = member.value
        if length is None:
            length = 0
        if not isinstance(length, int) or isinstance(length, bool):
            self._fault(member, f"is {_kind(length)}, not a whole number", f"use {rules.usual}, for one")
            return None
        if network is None:
            return None
        shortest = network.prefixlen + 2
        if shortest > rules.longest:
            self._fault(
                self._find(rules.network),
                f"is too small: four subnets of four addresses need a /{rules.longest - 2} or larger",
                f"give a network such as {rules.example!r}",
            )
            return None
        if length == 0:  # flannel, too, takes it for "not given"
            return max(rules.usual, shortest)
        if not shortest <= length <= rules.longest:
            too_few = "four addresses per subnet" if length > rules.longest else f"four subnets in {network}"
            self._fault(member, f"leaves fewer than {too_few}", f"use a length from {shortest} to {rules.longest}")
            return None
        return length

    def _bound(self, key: str, rules: _Rules, network: IPNetwork | None, length: int | None) -> IPAddress | None:
        """Return the value of SubnetMin or SubnetMax; None where there is none, or none that can be used."""
        member = self._find(key)
        text = member.value
        if text is None:
            return None
        try:
            if not isinstance(text, str) or "%" in text:
                raise ValueError
            address = rules.address(text)
        except ValueError:
            self._fault(member, f"is no {rules.word} address", "give the first address of a subnet, and no length")
            return None
        if not int(address):  # flannel, too, takes it for "not given"
            return None
        if network is None or length is None:
            return None
        aligned = int(address) - int(address) % (1 << (network.max_prefixlen - length))
        if address not in network:
            self._fault(member, f"is outside the network {network}", f"use where one of its /{length} begins")
            return None
        if int(address) != aligned:
            self._fault(member, f"is not where a /{length} begins", f"use {rules.address(aligned)}, for one")
            return None
        return address

    def _backend(self) -> tuple[str, tuple[tuple[str, Scalar], ...]]:
        backend = self._find("Backend")
        members = {} if backend.value is None else backend.value
        if not isinstance(members, dict):
            self._fault(backend, f"is {_kind(members)}, not an object", 'give {"Type": "vxlan"}, for one')
            return DEFAULT_BACKEND, ()
        options: list[tuple[str, Scalar]] = []
        backend_type = DEFAULT_BACKEND
        for key, value in folded(members).values():
            member = _Member(f"{backend.key}.{member_name(key)}", value)
            if value is None:
                continue
            if key.lower() == "type":
                if isinstance(value, str) and value:
                    backend_type = value.lower()
                else:
                    self._fault(member, "is no name of a backend", 'give "vxlan", for one')
            elif isinstance(value, Scalar):
                options.append((key, value))
            else:
                self._fault(member, f"is {_kind(value)}", "an option is text, a number, true or false")
        return backend_type, tuple(options)

    def _flag(self, key: str, *, default: bool) -> bool:
        member = self._find(key)
        if member.value is None:
            return default
        if not isinstance(member.value, bool):
            self._fault(member, f"is {_kind(member.value)}, not a truth value", "use true or false")
            return default
        return member.value

    def _find(self, key: str) -> _Member:
        return _Member(*self.members.get(key.lower(), (key, None)))

    def _fault(self, member: _Member, reason: str, remedy: str) -> None:
        self.faults.append(
            ConfigFault(member.key, "" if member.value is None else quoted(member.value), reason, remedy)
        )


def _shortened(sentences: Iterable[object], what: str) -> list[str]:
    """Shorten the list to a readable length."""
    texts = list(map(str, sentences))
    return texts if len(texts) <= TOLD else [*texts[:TOLD], f"and {len(texts) - TOLD} more {what}"]


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {
        dict: "an object",
        list: "an array",
        str: "text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return kinds[type(value)]


def member_name(key: str) -> str:
    """Return a key as it was spelled: bare where it is a plain word."""
    return key if key.isidentifier() and key.isascii() and len(key) <= QUOTE_LIMIT else quoted(key)
