"""The values of a bench: modes, measures, plans, samples."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Baseline(enum.Enum):
    """A carrier of packets past the daemons of a lab; see `baselines`."""

    LOOP = enum.auto()
    FLANNEL_LOOP = enum.auto()
    VXLAN_BY_HAND = enum.auto()
    VXLAN_AND_NAT_BY_HAND = enum.auto()


@dataclass(frozen=True)
class Setup:
    """The lab of a mode.

    `datapaths` are what its daemons are set to use, if it has a userspace datapath.  `peers` is how many leases
    there are of nodes that do not exist.  With a `baseline` the packets do not take the routes of the lab.
    """

    backend: str = "host-gw"
    datapaths: tuple[str, ...] = ()
    ip_masq: bool = False
    peers: int = 0
    baseline: Baseline | None = None


class Mode(enum.StrEnum):
    """A way to carry packets, set up by real daemons except for the baselines."""

    HOST_GW = "host-gw"
    VXLAN = "vxlan"
    VXLAN_1K = "vxlan-1k"
    VXLAN_10K = "vxlan-10k"
    """vxlan with so many peers in the sets of the source check."""
    VXLAN_MASQ = "vxlan-masq"
    """vxlan with --ip-masq."""
    UDP_C = "udp-c"
    UDP_PYTHON = "udp-python"
    VXLAN_PLAIN = "vxlan-plain"
    """The baseline for vxlan: a device, an FDB entry, a neighbour and a route, made by hand, and no nftables."""
    NAT_PLAIN = "nat-plain"
    """The baseline for vxlan-masq: the same and one rule that masquerades."""
    FLANNEL_LIKE = "flannel-like"
    """The baseline for udp: the work of flannel's loop, see c/flannel_like.c."""
    PLAIN = "plain"
    """The floor for udp: one packet a system call, see c/plain.c."""

    @property
    def setup(self) -> Setup:
        return _SETUPS[self]


_SETUPS = {
    Mode.HOST_GW: Setup(),
    Mode.VXLAN: Setup("vxlan"),
    Mode.VXLAN_1K: Setup("vxlan", peers=1_000),
    Mode.VXLAN_10K: Setup("vxlan", peers=10_000),
    Mode.VXLAN_MASQ: Setup("vxlan", ip_masq=True),
    Mode.UDP_C: Setup("udp", ("c",)),
    Mode.UDP_PYTHON: Setup("udp", ("python",)),
    Mode.VXLAN_PLAIN: Setup(baseline=Baseline.VXLAN_BY_HAND),
    Mode.NAT_PLAIN: Setup(baseline=Baseline.VXLAN_AND_NAT_BY_HAND),
    Mode.FLANNEL_LIKE: Setup(baseline=Baseline.FLANNEL_LOOP),
    Mode.PLAIN: Setup(baseline=Baseline.LOOP),
}
USUAL = (
    Mode.HOST_GW,
    Mode.VXLAN,
    Mode.UDP_C,
    Mode.UDP_PYTHON,
    Mode.VXLAN_PLAIN,
    Mode.FLANNEL_LIKE,
    Mode.PLAIN,
)
"""The modes of a bench that is not told which."""


class WireSize(enum.StrEnum):
    """The largest packet that passes between two nodes."""

    SUPERPACKETS = "superpacket"
    """Up to 64 KB, as a veth pair allows: they arrive unsegmented."""
    MTU_SIZED = "mtu-sized"
    """1,500 bytes: the sending kernel segments what is larger, as for a network card that can't."""


@dataclass(frozen=True)
class Quantity:
    """The display of a measure: a raw figure is divided by `scale` to be in `unit`."""

    title: str
    unit: str
    scale: float
    more_is_better: bool = True
    digits: int = 1


class Measure(enum.StrEnum):
    """A measured quantity, in bits a second, packets a second, seconds, or processor seconds per gigabit."""

    TCP_1 = "tcp-1"
    TCP_4 = "tcp-4"
    CPU = "cpu"
    """Processor time of the whole machine, both nodes and both pods, while `tcp-1` ran."""
    PACKETS_64 = "packets-64"
    LOSSLESS_64 = "lossless-64"
    PACKETS_1400 = "packets-1400"
    LOSSLESS_1400 = "lossless-1400"
    """Datagrams with so many bytes of payload: the highest rate that arrived, however many were lost, and the
    highest rate at which at most 1 in 100 was lost.  The latter depends on queues, and on how long their readers
    wait for a processor."""
    RTT_P50 = "rtt-p50"
    RTT_P99 = "rtt-p99"
    """The round trip of a 64-byte datagram, with one node and its pod on one processor, the other on another."""

    @property
    def quantity(self) -> Quantity:
        return _QUANTITIES[self]


_QUANTITIES = {
    Measure.TCP_1: Quantity("TCP, 1 stream", "Gbit/s", 1e9, digits=2),
    Measure.TCP_4: Quantity("TCP, 4 streams", "Gbit/s", 1e9, digits=2),
    Measure.CPU: Quantity("CPU", "s/Gbit", 1.0, more_is_better=False, digits=2),
    Measure.PACKETS_64: Quantity("64 B", "kpps", 1e3),
    Measure.LOSSLESS_64: Quantity("64 B loss-free", "kpps", 1e3),
    Measure.PACKETS_1400: Quantity("1400 B", "kpps", 1e3),
    Measure.LOSSLESS_1400: Quantity("1400 B loss-free", "kpps", 1e3),
    Measure.RTT_P50: Quantity("RTT p50", "µs", 1e-6, more_is_better=False, digits=0),
    Measure.RTT_P99: Quantity("RTT p99", "µs", 1e-6, more_is_better=False, digits=0),
}


@dataclass(frozen=True)
class BenchPlan:
    """A plan: `seconds` of each TCP measurement; round trips take half of it, a trial of packets a quarter.

    `trials`: at most so many rates are tried to find the one without loss.
    """

    modes: tuple[Mode, ...] = USUAL
    wires: tuple[WireSize, ...] = tuple(WireSize)
    rounds: int = 3
    seconds: int = 3
    trials: int = 8


@dataclass(frozen=True)
class Turn:
    """One mode's turn in one round on one wire."""

    round: int
    wire: WireSize
    mode: Mode


@dataclass(frozen=True)
class Sample:
    """The figures of a turn."""

    turn: Turn
    figures: Mapping[Measure, float]


@dataclass(frozen=True)
class Surroundings:
    """Where the bench ran.

    `load` is the machine's load average before the first turn, so all of it is work of other programs.
    `datapaths` describes the datapath of each udp mode, as its daemon reports it.
    """

    overlayd: str
    kernel: str
    python: str
    iperf3: str
    processors: int
    congestion_control: str
    load: float
    datapaths: Mapping[Mode, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchRun:
    """A whole bench, as `--json` prints it, with the judgement beside it."""

    plan: BenchPlan
    surroundings: Surroundings
    samples: tuple[Sample, ...]
