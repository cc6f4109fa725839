"""Every problem that overlayd can name, once: the code, what it means, how bad it is, what to do about it.

Whatever tells problems apart reads this table, and no code's literal: the conditions of a node, its verdict and
readiness, and the pages in docs/ (`make problems` writes those).  A `Problem` with a code that is not here can't
be made.

The meaning is one sentence without its full stop; the remedy is a command or an imperative sentence.  Both are
Markdown.  The text of a Problem says the particulars of one case, the table what all its cases have in common.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Truth(enum.Enum):
    """The status of a condition, as in Kubernetes."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class ConditionType(enum.Enum):
    """A question about a node, or about a peer (PROGRAMMED alone).  Each is well when it is true."""

    ALIVE = "Alive"
    LEASE_HELD = "LeaseHeld"
    IN_SYNC = "InSync"
    PROGRAMMED = "Programmed"
    STORE_REACHABLE = "StoreReachable"
    STORE_SOUND = "StoreSound"
    CONFIG_USABLE = "ConfigUsable"
    UNDERLAY_UP = "UnderlayUp"
    HOST_READY = "HostReady"
    FIREWALL_CHECKED = "FirewallChecked"
    PUBLISHED = "Published"
    STATE_KEPT = "StateKept"


TRUE_WHEN = {
    ConditionType.ALIVE: "the daemon looked at the kernel within the last two resync intervals",
    ConditionType.LEASE_HELD: "the subnet is this node's; unknown while the lease is fenced",
    ConditionType.IN_SYNC: "a whole snapshot of the store was read",
    ConditionType.PROGRAMMED: "all that the node itself needs is in the kernel",
    ConditionType.STORE_REACHABLE: "the store answers",
    ConditionType.STORE_SOUND: "every record in the store can be read and served",
    ConditionType.CONFIG_USABLE: "the network config in the store can be used, and is the intended one",
    ConditionType.UNDERLAY_UP: "the underlay is up, and the kernel has a route to each peer",
    ConditionType.HOST_READY: "nothing on this host keeps the network config from coming into force",
    ConditionType.FIREWALL_CHECKED: "the firewalls of others were read, and none drops the overlay's packets",
    ConditionType.PUBLISHED: "runtimes can read the subnet and use it",
    ConditionType.STATE_KEPT: "the identity and the state of this node outlast a restart",
}
"""What a condition claims when it is true, as the end of a sentence."""


class Severity(enum.IntEnum):
    """The severity of a problem, the worst last."""

    DEGRADED = 1
    """Something does not work, or will not: the verdict is not healthy."""
    UNREADY = 2
    """A pod that starts now gets no network: /readyz says 503, too."""


@dataclass(frozen=True, slots=True)
class ProblemCode:
    """One row.  `truth` is what the problem makes of its condition, where that is judged by problems alone."""

    code: str
    about: ConditionType
    severity: Severity
    meaning: str
    remedy: str
    truth: Truth = Truth.FALSE


_DEGRADED, _UNREADY = Severity.DEGRADED, Severity.UNREADY
_ALL = (
    ProblemCode(
        "status-stale",
        ConditionType.ALIVE,
        _UNREADY,
        "The daemon's loop hangs, or the machine was suspended until just now",
        "`systemctl restart overlayd`: forwarding stays as it is",
    ),
    # The own lease
    ProblemCode(
        "lease-unclaimed",
        ConditionType.LEASE_HELD,
        _UNREADY,
        "This node has no subnet yet, for the reason in the text",
        "Do as the text says",
    ),
    ProblemCode(
        "out-of-subnets",
        ConditionType.LEASE_HELD,
        _UNREADY,
        "Every subnet is taken, some perhaps by nodes that are gone; this node waits for one",
        "`overlayd leases list`, then `overlayd leases release SUBNET`, or enlarge the network",
    ),
    ProblemCode(
        "claims-frozen",
        ConditionType.LEASE_HELD,
        _UNREADY,
        "An operator froze claims, for a restore of etcd; this node waits",
        "Wait: they thaw by themselves. Or `overlayd leases thaw`",
    ),
    ProblemCode(
        "other-self",
        ConditionType.LEASE_HELD,
        _UNREADY,
        "Another daemon has this node's identity and took its subnet: the machine was cloned",
        "On one of the two: stop the daemon, remove `/var/lib/overlayd/node.json`, start it",
    ),
    ProblemCode(
        "lease-lost",
        ConditionType.LEASE_HELD,
        _UNREADY,
        "Another node holds the subnet, or the config has no room for it",
        "Wait for the new subnet, then restart the pods with old addresses",
    ),
    ProblemCode(
        "lease-fenced",
        ConditionType.LEASE_HELD,
        _UNREADY,
        "The store was silent for so long that the lease may be another node's; pods that run keep their network",
        "Mend the store, or the way to it; the node recovers by itself",
        Truth.UNKNOWN,
    ),
    ProblemCode(
        "lease-not-renewed",
        ConditionType.LEASE_HELD,
        _DEGRADED,
        "The last renewal failed; the lease holds for the time shown",
        "Mend the store before that time is over",
    ),
    ProblemCode(
        "lease-unwritable",
        ConditionType.LEASE_HELD,
        _DEGRADED,
        "The lease that the backend would write could not be read back by peers",
        "Report it to the author of the backend, with `overlayd bundle`",
    ),
    # The kernel
    ProblemCode(
        "kernel-behind",
        ConditionType.PROGRAMMED,
        _UNREADY,
        "Not all that the node itself needs is in the kernel yet",
        "Wait a moment. If it stays, find out what removes it: `ip monitor all`",
    ),
    ProblemCode(
        "kernel-refused",
        ConditionType.PROGRAMMED,
        _DEGRADED,
        "The kernel refused an entry; it is tried again, at least once a minute",
        "Do as the kernel's words in the text say",
    ),
    ProblemCode(
        "kernel-silent",
        ConditionType.PROGRAMMED,
        _DEGRADED,
        "The kernel could not be asked; it is asked again",
        "`journalctl -u overlayd` has the whole error",
        Truth.UNKNOWN,
    ),
    ProblemCode(
        "datapath-down",
        ConditionType.PROGRAMMED,
        _DEGRADED,
        "The userspace datapath ended, or can't run; it is tried again, at least once a minute",
        "Do as the text says; `journalctl -u overlayd` has the whole error",
    ),
    # The store
    ProblemCode(
        "store-unreachable",
        ConditionType.STORE_REACHABLE,
        _DEGRADED,
        "etcd is away, or says no: wrong endpoint, certificate, password or rights. Forwarding goes on",
        "`etcdctl --endpoints=… endpoint health`; rights as in [security.md](security.md#rights-in-etcd)",
    ),
    ProblemCode(
        "store-went-back",
        ConditionType.STORE_SOUND,
        _DEGRADED,
        "The store shows an older revision than before: it was restored from a backup",
        "`overlayd leases list`: has every node a subnet of its own? See"
        " [operations.md](operations.md#restoring-etcd-from-a-backup)",
    ),
    ProblemCode(
        "key-unknown",
        ConditionType.STORE_SOUND,
        _DEGRADED,
        "A key beside the leases is not named like one; a flannel in the cluster would lose all its peers over it",
        "`etcdctl get --prefix --keys-only /coreos.com/network/`; delete it",
    ),
    ProblemCode(
        "lease-malformed",
        ConditionType.STORE_SOUND,
        _DEGRADED,
        "A lease's value can't be read; that node is not served",
        "Find out what wrote it; correct or delete the key",
    ),
    ProblemCode(
        "lease-oversized",
        ConditionType.STORE_SOUND,
        _DEGRADED,
        "A lease's value is too long to be one; that node is not served",
        "Find out what wrote it; correct or delete the key",
    ),
    ProblemCode(
        "hold-malformed",
        ConditionType.STORE_SOUND,
        _DEGRADED,
        "A key under `overlayd/held/` can't be read; its subnet is not given to anyone",
        "Delete it, or wait: it expires with its node's grant",
    ),
    ProblemCode(
        "lease-outside",
        ConditionType.STORE_SOUND,
        _DEGRADED,
        "A lease lies outside the network: it is of an older config, or another program wrote it",
        "`overlayd leases list`; let its node claim a new one, or `overlayd leases release SUBNET`",
    ),
    ProblemCode(
        "lease-overlap",
        ConditionType.STORE_SOUND,
        _DEGRADED,
        "Two leases overlap; the older one is served",
        "`overlayd leases list`; let the node of the younger claim another",
    ),
    # The network config
    ProblemCode(
        "no-config",
        ConditionType.CONFIG_USABLE,
        _DEGRADED,
        "There is no network config under `--etcd-prefix`",
        "`overlayd config set FILE`, or correct `--etcd-prefix`",
    ),
    ProblemCode(
        "config-invalid",
        ConditionType.CONFIG_USABLE,
        _DEGRADED,
        "The network config can't be used; the one before it stays in force",
        "`overlayd config check FILE` lists everything that is wrong; then `overlayd config set FILE`",
    ),
    ProblemCode(
        "config-differs",
        ConditionType.CONFIG_USABLE,
        _DEGRADED,
        "The file of `--network-config` says something else than the config in force, which stands in etcd",
        "`overlayd config show`; then change the file, or `overlayd config set FILE`",
    ),
    # The underlay
    ProblemCode(
        "no-underlay",
        ConditionType.UNDERLAY_UP,
        _DEGRADED,
        "No interface fits: no default route, a wrong name or pattern, or no IPv4 address",
        "`ip address`; bring it up, or name another: `--iface`, `--iface-regex` or `--iface-can-reach`"
        " ([the interface](operations.md#the-interface))",
    ),
    ProblemCode(
        "underlay-down",
        ConditionType.UNDERLAY_UP,
        _DEGRADED,
        "The interface that carries the overlay is down",
        "`ip link set INTERFACE up`",
    ),
    ProblemCode(
        "peer-unreachable",
        ConditionType.UNDERLAY_UP,
        _DEGRADED,
        "The kernel has no route to the underlay address of a peer, or one that drops",
        "`ip route get ADDRESS`; restore the route",
    ),
    # The host
    ProblemCode(
        "network-overlap",
        ConditionType.HOST_READY,
        _DEGRADED,
        "The overlay's network overlaps the underlay or another route of this host",
        "`ip route`; choose another `Network`, or remove what is in the way",
    ),
    ProblemCode(
        "vxlan-missing",
        ConditionType.HOST_READY,
        _DEGRADED,
        "The kernel has no VXLAN",
        "`modprobe vxlan`, or set `Backend.Type` to `host-gw`",
    ),
    ProblemCode(
        "tun-missing",
        ConditionType.HOST_READY,
        _DEGRADED,
        "No TUN device can be made: `/dev/net/tun` is missing or may not be opened",
        "`modprobe tun`; in a container: give it `/dev/net/tun`; or set another `Backend.Type`",
    ),
    ProblemCode(
        "vxlan-taken",
        ConditionType.HOST_READY,
        _DEGRADED,
        "Another VXLAN device, such as flannel's, has the same VNI and port",
        "`ip -d link show type vxlan`; stop what made it, and delete the device",
    ),
    ProblemCode(
        "port-taken",
        ConditionType.HOST_READY,
        _DEGRADED,
        "Another program has the UDP port; the text names it where its process can be seen",
        "`ss -lunp`; stop it, or set another `Backend.Port` for the cluster",
    ),
    ProblemCode(
        "forwarding-off",
        ConditionType.HOST_READY,
        _DEGRADED,
        "IPv4 forwarding is off and can't be switched on: /proc/sys is read-only",
        "`sysctl -w net.ipv4.ip_forward=1`",
    ),
    ProblemCode(
        "not-privileged",
        ConditionType.HOST_READY,
        _DEGRADED,
        "The daemon has no CAP_NET_ADMIN, and may not change the host's network",
        "Run it as root, or with `AmbientCapabilities=CAP_NET_ADMIN`",
    ),
    # Firewalls of others
    ProblemCode(
        "firewall-drops",
        ConditionType.FIREWALL_CHECKED,
        _DEGRADED,
        "Another program's firewall drops packets of the overlay"
        " ([firewalls of others](operations.md#firewalls-of-others))",
        "Run the command that the text ends with",
    ),
    ProblemCode(
        "iptables-unreadable",
        ConditionType.FIREWALL_CHECKED,
        _DEGRADED,
        "Others use this iptables, and overlayd can't see or change it",
        "`apt-get install iptables`; for iptables-legacy: grant CAP_NET_RAW, too",
        Truth.UNKNOWN,
    ),
    # What runtimes read
    ProblemCode(
        "subnet-file-unwritable",
        ConditionType.PUBLISHED,
        _UNREADY,
        "`subnet.env` can't be written, so new pods won't start",
        "`ls -ld /run/flannel`; make it writable, or set another `--subnet-file`",
    ),
    ProblemCode(
        "cni-unwritable",
        ConditionType.PUBLISHED,
        _UNREADY,
        "The CNI configuration can't be written: the directory of `--cni-conf-dir` is missing or read-only",
        "`ls -ld /etc/cni/net.d`; make it, or set another `--cni-conf-dir`",
    ),
    ProblemCode(
        "cni-plugins-missing",
        ConditionType.PUBLISHED,
        _DEGRADED,
        "CNI plugins are not in `--cni-bin-dir`; without `bridge` and `host-local` no configuration is written,"
        " and the runtime calls the node not ready",
        "`ls /opt/cni/bin /usr/lib/cni`; set `--cni-bin-dir`, or install them: Debian's are in"
        " the package containernetworking-plugins",
    ),
    ProblemCode(
        "cni-shadowed",
        ConditionType.PUBLISHED,
        _DEGRADED,
        "Another CNI configuration comes first by name, so pods are not on this overlay",
        "`ls /etc/cni/net.d`; remove it",
    ),
    ProblemCode(
        "old-addresses",
        ConditionType.PUBLISHED,
        _DEGRADED,
        "Pods of this node still have addresses of a subnet that it lost; packets to them go to its new holder",
        "Restart the pods that are named",
    ),
    # What the node keeps
    ProblemCode(
        "identity-lost",
        ConditionType.STATE_KEPT,
        _DEGRADED,
        "`node.json` was damaged, by a power loss or by hand: this is a new node, with a new subnet",
        "Restore it from `node.json.damaged` or a backup while the daemon is stopped, if the old subnet is needed",
    ),
    ProblemCode(
        "identity-copied",
        ConditionType.STATE_KEPT,
        _DEGRADED,
        "The state directory came from another machine, or from a backup: this is a new node, with a new subnet",
        "Do nothing: the old subnet comes free when its lease runs out",
    ),
    ProblemCode(
        "identity-volatile",
        ConditionType.STATE_KEPT,
        _DEGRADED,
        "The state directory is lost at each boot, and the subnet with it",
        "`findmnt --target /var/lib/overlayd`; set `--state-dir` to a directory on a disk, or for a host"
        " without one `--identity volatile`",
    ),
    ProblemCode(
        "state-dir-unwritable",
        ConditionType.STATE_KEPT,
        _DEGRADED,
        "The node's identity can't be kept: the disk is full or read-only",
        "`df -h /var/lib/overlayd`; make `--state-dir` writable, or the node takes a new subnet at its next start",
    ),
    ProblemCode(
        "run-dir-unwritable",
        ConditionType.STATE_KEPT,
        _DEGRADED,
        "`overlayd cleanup` will not find all of it: the disk is full or read-only",
        "`df -h /run/overlayd`; make `--run-dir` writable",
    ),
)
REGISTRY = {row.code: row for row in _ALL}
