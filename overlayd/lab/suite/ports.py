"""The port of each check: each has its own, so that a fault can concern one check alone.

They are below the kernel's range of ports for clients (net.ipv4.ip_local_port_range)."""

from __future__ import annotations

import enum


class Port(enum.IntEnum):
    POD_POD_TCP = 7001
    POD_POD_UDP = 7002
    SAME_NODE = 7003
    NODE_POD = 7004
    POD_NODE = 7005
    NO_NAT = 7006
    LARGE_TCP = 7007
    LARGE_UDP = 7008
    MTU_EXACT = 7009
    TTL = 7010
    SPOOF_OUTER = 7011
    SPOOF_INNER = 7012
    SPOOF_SUBNET = 7013
    MASQUERADE_OUTSIDE = 7014
    SERVICE = 7015
    HAIRPIN = 7016
    FORWARD_DROP = 7017
