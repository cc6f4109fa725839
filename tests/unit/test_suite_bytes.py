"""What the checks put on the wire and read from it: messages of our own, ICMP, the kernel's error queue."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from overlayd.lab.suite.echo_protocol import EchoRequest, ExchangeError, answer_to, parse_answer, why_wrong
from overlayd.lab.suite.icmp import Echo, IcmpType, checksum, echo_request, find_echo
from overlayd.lab.suite.icmp_errors import IcmpError, parse_icmp_error

NONCES = st.text("0123456789abcdef", min_size=16, max_size=16)
SIZES = st.integers(0, 5_000)


@given(NONCES, SIZES, SIZES)
def test_an_honest_answer_is_right(nonce: str, sent: int, wanted: int) -> None:
    question = EchoRequest(nonce, sent, wanted)
    answer = parse_answer(answer_to(question.encode(), "pod2-1", "10.244.1.2").encode())
    assert why_wrong(question, answer, "pod2-1") is None
    assert answer.source == "10.244.1.2"
    assert len(answer.payload) == wanted


@given(NONCES, st.integers(60, 9_000))
def test_a_question_can_be_made_to_measure(nonce: str, size: int) -> None:
    assert len(EchoRequest.of_size(nonce, size).encode()) == size


def test_every_way_for_an_answer_to_be_wrong_is_named() -> None:
    question = EchoRequest("0123456789abcdef", 2_000, 2_000)
    answer = answer_to(question.encode(), "pod2-1", "10.244.1.2")
    assert why_wrong(question, answer, "pod3-1") == "answered by pod2-1"
    assert why_wrong(question, replace(answer, nonce="0" * 16), "pod2-1") == (
        "pod2-1 answered another question than the one asked"
    )
    cut = answer_to(question.encode()[:-1], "pod2-1", "10.244.1.2")
    assert why_wrong(question, cut, "pod2-1") == "the 2000 bytes sent arrived changed"
    short = replace(answer, payload=answer.payload[:-1])
    assert why_wrong(question, short, "pod2-1") == "of the 2000 bytes asked for 1999 came, or changed"
    bent = replace(answer, payload=b"?" + answer.payload[1:])
    assert why_wrong(question, bent, "pod2-1") == "of the 2000 bytes asked for 2000 came, or changed"


@given(st.binary(max_size=200))
def test_garbage_is_no_message(data: bytes) -> None:
    with pytest.raises(ExchangeError):
        parse_answer(data)
    with pytest.raises(ExchangeError):
        answer_to(data, "pod1-1", "10.244.1.2")


@pytest.mark.parametrize("wanted", ["1e9", "-1", '"9"', "70000"])
def test_a_responder_gives_no_more_than_a_datagram_holds(wanted: str) -> None:
    with pytest.raises(ExchangeError):
        answer_to(f'{{"nonce": "0", "wanted": {wanted}}}\n'.encode(), "pod1-1", "10.244.1.2")


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=99))
def test_an_echo_request_is_what_scapy_makes_of_it(identifier: int, sequence: int, payload: bytes) -> None:
    theirs = ICMP(type=8, id=identifier, seq=sequence) / Raw(payload)
    assert echo_request(identifier, sequence, payload) == bytes(theirs)


@given(st.binary(max_size=99))
def test_a_message_with_its_checksum_sums_to_nothing(payload: bytes) -> None:
    assert checksum(echo_request(1, 2, payload)) == 0


def test_echoes_are_read_and_nothing_else() -> None:
    reply = IP(src="10.244.2.2", dst="10.244.1.2") / ICMP(type=0) / Raw(b"nonce")
    assert find_echo(bytes(reply)) == Echo(IcmpType.REPLY, IPv4Address("10.244.2.2"), b"nonce")
    request = IP(src="10.244.1.2", dst="10.244.2.2") / ICMP(type=8)
    assert find_echo(bytes(request)) == Echo(IcmpType.REQUEST, IPv4Address("10.244.1.2"), b"")
    assert find_echo(bytes(IP() / ICMP(type=3, code=1) / request)) is None


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reading_of_icmp(data: bytes) -> None:
    find_echo(data)
    find_echo(bytes(IP() / UDP()) + data)


def test_the_error_queue_names_who_objects_and_how() -> None:
    router = struct.pack("=HH4s8x", 2, 0, IPv4Address("10.244.1.1").packed)
    too_big = struct.pack("=IBBBBII", errno.EMSGSIZE, 2, 3, 4, 0, 1400, 0) + router
    assert parse_icmp_error(too_big) == IcmpError(errno.EMSGSIZE, IPv4Address("10.244.1.1"), (3, 4), 1400)
    assert parse_icmp_error(too_big).is_fragmentation_needed
    assert str(parse_icmp_error(too_big)) == "message too long for an MTU of 1400, says 10.244.1.1"
    too_far = struct.pack("=IBBBBII", errno.EHOSTUNREACH, 2, 11, 0, 0, 0, 0) + router
    assert parse_icmp_error(too_far).is_time_exceeded
    assert str(parse_icmp_error(too_far)) == "time to live exceeded, says 10.244.1.1"
    refused = struct.pack("=IBBBBII", errno.ECONNREFUSED, 2, 3, 3, 0, 0, 0) + router
    assert str(parse_icmp_error(refused)) == "connection refused, says 10.244.1.1"
    local = struct.pack("=IBBBBII", errno.EMSGSIZE, 1, 0, 0, 0, 1450, 0) + bytes(16)
    assert parse_icmp_error(local) == IcmpError(errno.EMSGSIZE, mtu=1450)
