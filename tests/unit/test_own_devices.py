"""Which devices are overlayd's: what its drivers declare, by name and kind."""

from __future__ import annotations

import pytest

from overlayd.core.kernel.driver import is_our_device
from overlayd.host.netlink.driver import VXLAN_DEVICES
from overlayd_backends.udp.driver import TUN_DEVICE

DECLARED = (VXLAN_DEVICES, TUN_DEVICE)


@pytest.mark.parametrize("name", ["ovl.1", "ovl.16777215", "ovl6.1"])
def test_a_vxlan_device_with_a_vni_in_its_name_is_ours(name: str) -> None:
    assert is_our_device(DECLARED, name, "vxlan")


@pytest.mark.parametrize(
    "name",
    [
        *("ovl", "ovl.udp1", "ovl6.udp", "ovl.", "ovl.x", "ovl.1a", "xovl.1", "ovl1", "ovl.1.2", "flannel.1"),
        *("ovl4.1", "ovl.1\n", "ovl.udp\n", "x"),
    ],
)
def test_a_name_that_is_almost_ours_is_not(name: str) -> None:
    for kind in ("vxlan", "tun"):
        assert not is_our_device(DECLARED, name, kind)


def test_a_name_is_ours_on_one_kind_of_device_alone() -> None:
    assert is_our_device(DECLARED, "ovl.udp", "tun")
    for name, kind in (("ovl.1", "tun"), ("ovl.1", "bridge"), ("ovl.1", ""), ("ovl.udp", "vxlan")):
        assert not is_our_device(DECLARED, name, kind)
    assert not is_our_device(DECLARED, "ovl.udp", "tap")


def test_without_its_driver_a_device_is_not_ours() -> None:
    assert not is_our_device((VXLAN_DEVICES,), "ovl.udp", "tun")
