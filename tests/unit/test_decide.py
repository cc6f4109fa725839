"""A pass as a value: which config is in force, what may be claimed, swept and published."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from overlayd.core.decide import Decision, Inputs, NodeSettings, Publication, Target, decide
from overlayd.core.host.preflight import HostFindings
from overlayd.core.host.snapshot import HostSnapshot
from overlayd.core.host.stale_addresses import UsedAddress
from overlayd.core.host.underlay import HostAddress, HostFacts, HostLink, HostRoute
from overlayd.core.kernel.driver import Scope
from overlayd.core.kernel.retries import Retries
from overlayd.core.leases.book import LeaseBook
from overlayd.core.leases.codec import encode_attributes
from overlayd.core.leases.lease import Attributes, Lease
from overlayd.core.leases.records import RecordBook, absorb_snapshot
from overlayd.core.leases.store import CONFIG, Record, Snapshot
from overlayd.core.leases.tenure import Tenure, Waiting
from overlayd.core.network.addresses import Mac, Subnet
from overlayd.core.network.desired import DesiredState
from overlayd.core.report import Report, publication
from overlayd.plugins import load_backends

NODE = IPv4Address("10.99.0.1")
OWN = Subnet.parse("10.244.5.0/24")
SETTINGS = NodeSettings("n1", "id1", "life1", Mac(b"\x02\0\0\0\0\1"), "/coreos.com/network/config", "eth0")
VXLAN = b'{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
FACTS = HostFacts(
    (HostLink(2, "eth0", 1500, True), HostLink(3, "cni0", 1450, True, kind="bridge")),
    (HostAddress("eth0", NODE, 16),),
    (HostRoute(IPv4Network("10.99.0.0/16"), "eth0"),),
)
FINDINGS = HostFindings()


def lease(subnet: Subnet = OWN, node_id: str = "id1") -> Lease:
    return Lease(subnet, Attributes((NODE,), "vxlan", None, None, node_id, node_id, "life1"), 3)


def book(config: bytes | None = VXLAN, *leases: Lease) -> LeaseBook:
    records = tuple(
        Record(f"subnets/{str(one.subnet).replace('/', '-')}", encode_attributes(one.attributes), 3, 3, 7)
        for one in leases
    )
    found = Record(CONFIG, config, 1, 1, 0) if config is not None else None
    return absorb_snapshot(RecordBook(), Snapshot(9, found, records), asked_at=0).book


def inputs(
    facts: HostFacts = FACTS,
    findings: HostFindings | None = FINDINGS,
    tenure: Tenure | None = None,
    the_book: LeaseBook | None = None,
    published: Subnet | None = None,
    given: tuple[Subnet, ...] = (),
) -> Inputs:
    return Inputs(
        100.0,
        SETTINGS,
        load_backends(),
        book() if the_book is None else the_book,
        tenure or Tenure(),
        HostSnapshot(facts, findings=findings),
        published=published,
        given=given,
    )


def holding(subnet: Subnet = OWN) -> Tenure:
    return Tenure(lease(subnet), is_held=True, until=1000.0)


def with_route(destination: str, link: str = "eth0", gateway: str | None = "10.99.0.77") -> HostFacts:
    foreign = HostRoute(IPv4Network(destination), link, IPv4Address(gateway) if gateway else None, protocol=4)
    return replace(FACTS, routes=(*FACTS.routes, foreign))


def codes(decision: Decision) -> set[str]:
    return {problem.code for problems in decision.problems.values() for problem in problems}


def test_a_config_comes_into_force_once_the_host_is_found_fit() -> None:
    first = decide(inputs(findings=None))
    assert (first.network, first.may_claim, first.target) == (None, False, None)
    assert first.question.requirements is not None, "the next snapshot finds out"
    second = decide(inputs(), first)
    assert second.network is not None
    assert second.may_claim
    assert second.question.requirements is None, "nothing is probed any more"


def test_an_obstacle_keeps_a_config_from_coming_into_force_and_is_asked_about_again() -> None:
    decision = decide(inputs(findings=HostFindings(port_free=False)))
    assert (decision.network, decision.may_claim) == (None, False)
    assert codes(decision) == {"port-taken"}
    assert decision.question.requirements is not None


def test_overlap_is_named_at_every_pass_while_it_lasts() -> None:
    before = decide(inputs(tenure=holding()))
    during = decide(inputs(with_route("10.244.19.128/25"), None, holding()), before)
    assert codes(during) == {"network-overlap"}
    assert (during.network, during.may_claim) == (before.network, False), "what is in force stays so"
    assert during.target == before.target
    assert not codes(decide(inputs(FACTS, FINDINGS, holding()), during))


def test_a_lease_that_stands_brings_its_config_into_force_whatever_preflight_says() -> None:
    """The daemon was restarted, and a foreign route appeared meanwhile."""
    facts = with_route("10.244.19.128/25")
    first = decide(inputs(facts, tenure=Tenure()))
    assert first.advertised is not None, "the claimer can adopt the lease"
    assert first.network is None
    second = decide(inputs(facts, tenure=holding()), first)
    assert second.network == first.candidate
    assert not second.may_claim
    assert codes(second) == {"network-overlap"}
    assert second.publication is Publication.PUBLISH


def test_a_new_config_that_the_host_is_not_fit_for_leaves_the_one_before_in_force() -> None:
    before = decide(inputs(tenure=holding()))
    new = book(b'{"Network":"10.245.0.0/16"}')
    after = decide(inputs(with_route("10.245.7.0/24"), tenure=holding(), the_book=new), before)
    assert after.network == before.network
    assert after.candidate != before.candidate
    assert not after.may_claim


@pytest.mark.parametrize("subnet_len", [25, 26])
def test_what_this_node_published_is_its_own_when_subnets_become_smaller(subnet_len: int) -> None:
    bridge = HostAddress("cni0", IPv4Address("10.244.5.1"), 24)
    route = HostRoute(IPv4Network("10.244.5.0/24"), "cni0")
    facts = replace(FACTS, addresses=(*FACTS.addresses, bridge), routes=(*FACTS.routes, route))
    smaller = book(b'{"Network":"10.244.0.0/16","SubnetLen":%d}' % subnet_len)
    assert codes(decide(inputs(facts, the_book=smaller))) == {"network-overlap"}
    assert not codes(decide(inputs(facts, the_book=smaller, published=OWN)))
    assert not codes(decide(inputs(facts, the_book=smaller, given=(OWN,))))


def test_nothing_is_swept_before_the_store_was_read_and_the_tenure_is_decided() -> None:
    before = decide(inputs())
    assert before.target is not None
    assert not before.target.sweep, "an address that nobody claims yet may well be ours"
    unread = decide(inputs(the_book=LeaseBook(), tenure=holding()), before)
    assert unread.target is not None
    assert not unread.target.sweep
    for tenure in (holding(), Tenure(lost_to="id2"), Tenure(waits_for=Waiting.SUBNET)):
        decided = decide(inputs(tenure=tenure), before)
        assert decided.target is not None
        assert decided.target.sweep
    frozen = decide(inputs(tenure=Tenure(waits_for=Waiting.THAW)), before)
    assert frozen.target is not None
    assert not frozen.target.sweep


def test_a_subnet_is_published_only_if_the_same_pass_put_it_into_the_kernel() -> None:
    decision = decide(inputs(tenure=holding()))
    assert decision.target is not None
    done = Report(100.0, decision, frozenset(), Retries())
    assert publication(done, holding()) is Publication.PUBLISH
    nothing_there = replace(done, missing=frozenset(decision.target.desired.kernel.by_key))
    assert publication(nothing_there, holding()) is Publication.KEEP
    assert publication(replace(done, trouble="the kernel is silent"), holding()) is Publication.KEEP
    assert publication(done, holding(Subnet.parse("10.244.6.0/24"))) is Publication.KEEP, "another one by now"
    assert publication(done, Tenure(lost_to="id2")) is Publication.KEEP, "the next pass withdraws it"


def test_a_subnet_that_is_known_not_to_be_ours_is_withdrawn() -> None:
    theirs = lease(node_id="id2")
    before = decide(inputs())
    taken = inputs(the_book=book(VXLAN, theirs), published=OWN)
    assert decide(taken, before).publication is Publication.WITHDRAW
    assert decide(inputs(tenure=Tenure(lost_to="id2")), before).publication is Publication.WITHDRAW
    assert decide(inputs(published=OWN), before).publication is Publication.KEEP
    assert decide(replace(taken, book=LeaseBook()), before).publication is Publication.KEEP, "not read yet"


def test_a_strict_fence_wants_no_peers_and_no_publication() -> None:
    strict = replace(SETTINGS, strict_fence=True)
    expired = replace(holding(), until=50.0)
    peers = book(VXLAN, lease(), lease(Subnet.parse("10.244.6.0/24"), "id2"))
    fenced = decide(replace(inputs(tenure=expired, the_book=peers), settings=strict), decide(inputs()))
    assert fenced.view is not None
    assert (fenced.view.lease, fenced.view.peers) == (None, ())
    assert fenced.publication is Publication.WITHDRAW
    lenient = decide(inputs(tenure=expired, the_book=peers), decide(inputs()))
    assert lenient.view is not None
    assert lenient.view.own == OWN


def test_a_host_that_cannot_be_read_changes_nothing() -> None:
    before = decide(inputs(tenure=holding()))
    blind = replace(inputs(tenure=holding()), host=HostSnapshot(unreadable="the kernel can't be asked: EIO"))
    after = decide(blind, before)
    assert (after.network, after.underlay, after.target) == (before.network, before.underlay, before.target)
    assert codes(after) == {"no-underlay", "kernel-silent"}


def test_every_decision_is_a_function_of_its_inputs() -> None:
    given = inputs(tenure=holding(), the_book=book(VXLAN, lease(), lease(Subnet.parse("10.244.6.0/24"), "id2")))
    assert decide(given) == decide(given)
    target = decide(given).target
    assert isinstance(target, Target)
    assert isinstance(target.desired, DesiredState)
    assert target.scope == Scope(frozenset({"eth0"}))


PEER = lease(Subnet.parse("10.244.6.0/24"), "id2")


def test_an_underlay_that_is_down_is_named() -> None:
    down = replace(FACTS, links=(HostLink(2, "eth0", 1500, False), *FACTS.links[1:]))
    assert codes(decide(inputs(down, None, holding()), decide(inputs()))) == {"underlay-down"}


@pytest.mark.parametrize("drops", ["", "blackhole"])
def test_a_peer_is_called_unreachable_only_if_the_kernel_says_so(drops: str) -> None:
    peers = book(VXLAN, lease(), replace(PEER, attributes=replace(PEER.attributes, public_ips=(NODE + 1,))))
    routes = (HostRoute(IPv4Network("10.99.0.2/32"), "", drops=drops), *FACTS.routes) if drops else ()
    cut_off = inputs(replace(FACTS, routes=routes), None, holding(), peers)
    before = decide(cut_off, decide(inputs()))
    assert before.question.targets == (NODE + 1,), "the main table alone proves nothing: rules may lead elsewhere"
    assert "peer-unreachable" not in codes(before)
    assert before.asks_again(decide(inputs()))
    told = replace(cut_off, host=replace(cut_off.host, unreachable={NODE + 1: "no route leads there"}))
    after = decide(told, before)
    assert "peer-unreachable" in codes(after)
    assert not after.asks_again(before)
    healed = decide(inputs(tenure=holding(), the_book=peers), after)
    assert "peer-unreachable" not in codes(healed)
    assert healed.question.targets == ()


def test_the_address_of_the_underlay_stays_while_the_interface_has_it() -> None:
    before = decide(inputs())
    vip = HostAddress("eth0", IPv4Address("10.99.0.250"), 16)
    local = HostAddress("eth0", IPv4Address("169.254.7.7"), 16)
    own = FACTS.addresses[0]
    for addresses in ((vip, own), (local, own), (local, vip, own)):
        after = decide(inputs(replace(FACTS, addresses=addresses), None), before)
        assert after.underlay is not None
        assert after.underlay.address == NODE
    alone = decide(inputs(replace(FACTS, addresses=(local, vip)), None), before)
    assert alone.underlay is not None
    assert alone.underlay.address == vip.address, "link-local comes last"


def test_pods_at_published_addresses_outside_the_network_are_named() -> None:
    moved = book(b'{"Network":"10.200.0.0/16"}')
    pods = (UsedAddress("cni0", IPv4Address("10.244.5.1")), UsedAddress("cni0", IPv4Address("10.244.5.9")))
    host = HostSnapshot(FACTS, findings=FINDINGS, used_addresses=pods)
    now_at = holding(Subnet.parse("10.200.7.0/24"))
    decision = decide(replace(inputs(tenure=now_at, the_book=moved, given=(OWN,)), host=host))
    [problem] = decision.problems["stale-addresses"]
    assert problem.code == "old-addresses"
    assert "10.244.5.1, 10.244.5.9" in problem.text
    assert "delete" not in problem.remedy
