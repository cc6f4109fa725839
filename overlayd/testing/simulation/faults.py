"""Injects the faults of a scenario: each begins, lasts, and ends."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv4Address

import trio

from overlayd.core.kernel.datapath import Datapath, Encap
from overlayd.core.kernel.driver import Operation
from overlayd.core.kernel.items import FdbEntry, Item, Link, Neighbour, Route
from overlayd.core.leases.codec import encode_attributes, format_subnet_name
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.store import CONFIG, FROZEN, Field, Guard, Put, StoreRefused, Transaction
from overlayd.core.leases.subnets import choose_subnet, find_config_mismatch
from overlayd.core.network.addresses import Mac, Subnet
from overlayd.testing.simulation.host import SCOPE, SimulatedHost
from overlayd.testing.simulation.scenario import BY_HAND, Fault, Scenario
from overlayd.testing.simulation.world import EVERYONE, SimulatedWorld
from overlayd.testing.store_link import Cut, LinkConditions

Body = Callable[[SimulatedWorld, Fault, SimulatedHost, random.Random], Awaitable[None]]


async def inject(world: SimulatedWorld, fault: Fault) -> None:
    """Wait for the fault's time, inject it, and return once it is over."""
    await trio.sleep_until(fault.at)
    chance = random.Random(f"fault {fault.salt}")
    await _BODIES[fault.kind](world, fault, world.host(fault.node), chance)
    if fault.kind in BY_HAND:
        world.break_assumption()


def config_of(scenario: Scenario, variant: int | None = None) -> bytes:
    """Make a network config with as many subnets as the scenario has.

    Variants differ in network, length, backend and VNI; by default every fourth scenario has the backend udp, the
    others vxlan.
    """
    if variant is None:
        variant = 3 if scenario.seed % 4 == 3 else 0
    backend: dict[str, object] = {"Type": "vxlan", "VNI": 1 + variant % 2}
    if variant % 5 > 2:
        backend = {"Type": "host-gw"} if variant % 5 == 4 else {"Type": "udp"}
    second = 244 + (variant // 2) % 2
    config: dict[str, object] = {"Network": f"10.{second}.0.0/16", "Backend": backend}
    length = 25 if variant % 3 == 1 else 24
    config["SubnetLen"] = length
    if scenario.subnets is not None:
        first = IPv4Address(f"10.{second}.1.0")
        config["SubnetMin"] = str(first)
        config["SubnetMax"] = str(first + (scenario.subnets - 1) * (1 << (32 - length)))
    return json.dumps(config).encode()


async def _daemon_kill(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    if not host.is_up:
        return
    with world.disturbance(host.number, "daemon killed"):
        host.kill()
        await trio.sleep(fault.lasts)
    if not host.is_up:
        await world.start(host)


async def _stale_start(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    """Kill a daemon, and let its peers move while it is down."""
    if not host.is_up:
        return
    with world.disturbance(host.number, "daemon killed"):
        host.kill()
        await trio.sleep(fault.lasts / 2)
        for other in world.hosts:
            if other is not host and chance.random() < 0.5:
                world.disturb(other.number)
                other.move()
        await trio.sleep(fault.lasts / 2)
    if not host.is_up:
        await world.start(host)


async def _etcd_outage(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    how = chance.choice([Cut.REFUSED, Cut.SILENT])
    with world.disturbance(EVERYONE, f"unreachable ({how.value})"):
        for each in world.hosts:
            each.store_link.sever(how)
        await trio.sleep(fault.lasts)
        for each in world.hosts:
            each.store_link.mend()


async def _partition(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    how = chance.choice([Cut.REFUSED, Cut.SILENT])
    with world.disturbance(host.number, f"cut off ({how.value})"):
        host.store_link.sever(how)
        await trio.sleep(fault.lasts)
        host.store_link.mend()


async def _lossy(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    everyone = chance.random() < 0.5
    conditions = LinkConditions(
        chance.choice([0.0, 0.1, 0.3]), chance.choice([0.0, 0.3]), chance.choice([0.02, 1.0, 6.0])
    )
    with world.disturbance(EVERYONE if everyone else host.number, f"bad link ({conditions})"):
        lines = [each.store_link for each in world.hosts] if everyone else [host.store_link]
        for line in lines:
            line.conditions = conditions
            if chance.random() < 0.5:
                line.break_watches("the connection was reset")
        await trio.sleep(fault.lasts)
        for line in lines:
            line.conditions = LinkConditions()


async def _etcd_wiped_watch(
    world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random
) -> None:
    """Cut a node off, let a peer move meanwhile, and compact the history of it away."""
    with world.disturbance(host.number, "cut off, history compacted meanwhile"):
        host.store_link.sever(Cut.SILENT)
        peer = chance.choice(world.hosts)
        world.disturb(peer.number)
        peer.move()
        await trio.sleep(fault.lasts)
        world.store.compact_all()
        host.store_link.mend()


async def _etcd_restore(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    """Restore a backup as docs/operations.md says, with claims frozen for one TTL, or without it.

    Without it the promise about leases is suspended.
    """
    backup, by_procedure = world.store.back_up(), chance.random() < 0.5
    await trio.sleep(fault.lasts)
    with world.disturbance(EVERYONE, f"restored from revision {backup.revision}"):
        for each in world.hosts:
            each.store_link.sever(Cut.REFUSED)
        world.went_back = True
        if by_procedure:
            world.store.restore(backup)
            await world.put(FROZEN, b"")
        else:
            world.break_assumption()
            world.store.restore(backup)
        await trio.sleep(1)
        for each in world.hosts:
            each.store_link.mend()
        if by_procedure:
            await trio.sleep(world.scenario.ttl)
            await world.delete(FROZEN)


async def _garbage_key(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    name, value = chance.choice(list(_GARBAGE.items()))
    if name in world.store.records:
        return
    with world.disturbance(EVERYONE, f"garbage at {name}"):
        await world.put(name, value)
        await trio.sleep(fault.lasts)
        await world.delete(name)


async def _lease_revoked(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    if host.is_up and host.keeper.lease_id:
        with world.disturbance(host.number, "its grant is revoked by hand"):
            world.break_assumption()
            await world.store.revoke(host.keeper.lease_id)


async def _lease_deleted(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    if (lease := world.oracle.lease_of(host)) is not None:
        with world.disturbance(host.number, f"its lease {lease.subnet} is deleted by hand"):
            world.break_assumption()
            await world.delete(format_subnet_name(lease.subnet))


async def _lease_stolen(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    if (lease := world.oracle.lease_of(host)) is not None:
        name = format_subnet_name(lease.subnet)
        with world.disturbance(host.number, f"its lease {lease.subnet} is overwritten by flannel"):
            world.break_assumption()
            await world.put(name, _foreign())
        await trio.sleep(fault.lasts)
        record = world.store.records.get(name)
        if record is not None and record.value == _foreign():
            with world.disturbance(EVERYONE, "flannel leaves"):
                world.break_assumption()
                await world.delete(name)


async def _lease_edited(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    if (lease := world.oracle.lease_of(host)) is not None:
        record = world.store.records[format_subnet_name(lease.subnet)]
        with world.disturbance(host.number, "its lease is edited by hand"):
            world.break_assumption()
            with suppress(StoreRefused):  # its grant may have ended at this instant
                await world.put(record.name, record.value.replace(b'"10.99.', b'"10.98.'), record.lease_id)


async def _suspend(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    await _stop_for(world, fault, host, timers_late=True)


async def _stop(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    await _stop_for(world, fault, host, timers_late=False)


async def _stop_for(world: SimulatedWorld, fault: Fault, host: SimulatedHost, *, timers_late: bool) -> None:
    if not host.is_running:
        return
    with world.disturbance(host.number, "suspended" if timers_late else "stopped"):
        host.stop()
        await trio.sleep(fault.lasts)
        host.wake(timers_late=timers_late)


async def _link_flap(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    with world.disturbance(host.number, "eth0 down"):
        host.kernel.set_link("eth0", up=False)
        host.note_foreign_state()
        await trio.sleep(fault.lasts)
        host.kernel.set_link("eth0", up=True)
        host.note_foreign_state()


async def _device_deleted(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    devices = [
        link for name, link in sorted(host.kernel.links.items()) if isinstance(link, Link) and "ovl" in name
    ]
    if devices:
        with world.disturbance(host.number, "device deleted"):
            host.kernel.delete_link(devices[0].name)
            if chance.random() < 0.5:
                mac = Mac(b"\x02alien") if devices[0].mac is not None else None
                host.kernel.add_link(Link(devices[0].name, devices[0].kind, mac, 1300, up=False))


async def _mac_changed(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    for name, link in sorted(host.kernel.links.items()):
        if isinstance(link, Link) and name.startswith("ovl.") and link.mac is not None:
            with world.disturbance(host.number, "MAC changed"):
                host.kernel.set_link(name, mac=Mac(b"\x02alien"))


async def _entry_deleted(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    """Delete one entry; with a datapath go all of its entries."""
    kinds = Route | FdbEntry | Neighbour | Datapath
    items: list[Item] = [item for item in await host.kernel.observe(SCOPE) if isinstance(item, kinds)]
    if items:
        item = chance.choice(items)
        with world.disturbance(host.number, f"deleted: {item}"):
            host.kernel.delete(item)
            if isinstance(item, FdbEntry) and chance.random() < 0.5:
                host.kernel.put(FdbEntry(item.link, item.mac, IPv4Address("10.99.250.250")))


async def _address_changed(
    world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random
) -> None:
    with world.disturbance(host.number, "underlay address changed"):
        host.move()


async def _config_changed(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    with world.disturbance(EVERYONE, "config changed"):
        await world.put(CONFIG, config_of(world.scenario, chance.randint(0, 11)))


async def _config_broken(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    before = world.store.records[CONFIG].value
    broken = b'{"Network":"10.244.0.0/30"}'
    with world.disturbance(EVERYONE, "config broken"):
        await world.put(CONFIG, broken)
        await trio.sleep(fault.lasts)
        if world.store.records[CONFIG].value == broken:
            await world.put(CONFIG, before)


async def _one_bad_entry(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    """Let the kernel refuse all entries of one peer; a retry may come a minute later."""
    peer = chance.choice(world.hosts)
    until = trio.current_time() + fault.lasts

    def is_refused(operation: Operation) -> bool:
        match operation.item:
            case FdbEntry(mac=mac):
                same = mac == peer.mac
            case Encap(destination=destination):
                same = destination == peer.address
            case _:
                same = False
        return same and trio.current_time() < until

    with world.disturbance(host.number, f"kernel refuses {peer.name}"):
        host.kernel.fail_next(is_refused, times=100)
        peer.move()
        world.disturb(peer.number)
        await trio.sleep(fault.lasts + 60)


async def _disk_full(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    if host.subnet_file.is_dir():
        return
    with world.disturbance(host.number, "subnet.env can't be written"):
        host.subnet_file.unlink(missing_ok=True)
        host.subnet_file.mkdir(exist_ok=True)
        await trio.sleep(fault.lasts)
        host.subnet_file.rmdir()


async def _frozen_claims(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    with world.disturbance(EVERYONE, "claims are frozen"):
        await world.put(FROZEN, b"")
        await trio.sleep(fault.lasts)
        await world.delete(FROZEN)


async def _reservation(world: SimulatedWorld, fault: Fault, host: SimulatedHost, chance: random.Random) -> None:
    """Reserve a free subnet for a node that has been down for so long that it has none."""
    oracle = world.oracle
    if not host.is_up or oracle.network is None:
        return
    with world.disturbance(host.number, "daemon killed, a subnet reserved for it"):
        host.kill()
        await trio.sleep(fault.lasts + world.scenario.ttl)
        oracle = world.oracle
        if oracle.network is not None and not oracle.book.is_frozen and oracle.lease_of(host) is None:
            taken = [*oracle.book.taken, *(hold.subnet for hold in oracle.records.holds)]
            subnet = choose_subnet(oracle.network[0], taken, None, chance.random())
            if subnet is not None:
                await _reserve(world, host, subnet)
    if not host.is_up:
        await world.start(host)


async def _reserve(world: SimulatedWorld, host: SimulatedHost, subnet: Subnet) -> None:
    name = format_subnet_name(subnet)
    value = encode_attributes(Attributes((), node_id=host.node_id))
    await world.store.commit(Transaction((Guard(name, Field.CREATE_REVISION, 0),), (Put(name, value, 0),)))


def _foreign() -> bytes:
    return encode_attributes(
        Attributes((IPv4Address("10.99.200.200"),), "vxlan", '{"VNI":1,"VtepMAC":"7a:eb:33:ad:22:5c"}')
    )


_GARBAGE = {
    "subnets/garbage": b"\x00\xff",
    "subnets/10.244.200.0-24": b"[" * 1000,
    "subnets/10.244.201.0-24": b"x" * 1_000_000,
    "subnets/192.168.0.0-24": _foreign(),
    "overlayd/held/nonsense": b"{}",
    "overlayd/held/10.244.202.0-24": b"[]",
    "overlayd/of-the-future": b"\x00",
}
_BODIES: dict[str, Body] = {
    "daemon-kill": _daemon_kill,
    "stale-start": _stale_start,
    "etcd-outage": _etcd_outage,
    "partition": _partition,
    "lossy": _lossy,
    "etcd-wiped-watch": _etcd_wiped_watch,
    "etcd-restore": _etcd_restore,
    "garbage-key": _garbage_key,
    "lease-revoked": _lease_revoked,
    "lease-deleted": _lease_deleted,
    "lease-stolen": _lease_stolen,
    "lease-edited": _lease_edited,
    "suspend": _suspend,
    "stop": _stop,
    "link-flap": _link_flap,
    "device-deleted": _device_deleted,
    "mac-changed": _mac_changed,
    "entry-deleted": _entry_deleted,
    "address-changed": _address_changed,
    "config-changed": _config_changed,
    "config-broken": _config_broken,
    "one-bad-entry": _one_bad_entry,
    "disk-full": _disk_full,
    "frozen-claims": _frozen_claims,
    "reservation": _reservation,
}


async def _release_reservations_outside_the_config(world: SimulatedWorld) -> None:
    oracle = world.oracle
    assert oracle.network is not None
    config, _ = oracle.network
    for lease in oracle.book.leases:
        if lease.is_reservation and find_config_mismatch(config, lease.subnet) is not None:
            await world.delete(format_subnet_name(lease.subnet))


async def clean_up(world: SimulatedWorld) -> None:
    """Undo as an operator what faults left in the store: from now on only the daemons have to recover."""
    for record in list(world.store.records.values()):
        if record.value == _foreign() or record.name in _GARBAGE or record.name == FROZEN:
            await world.delete(record.name)
    if world.oracle.network is None:
        await world.put(CONFIG, config_of(world.scenario))
    await _release_reservations_outside_the_config(world)
    for host in world.hosts:
        host.store_link.mend()
        host.store_link.conditions = LinkConditions()
        host.wake()
        if not host.is_up:
            await world.start(host)
