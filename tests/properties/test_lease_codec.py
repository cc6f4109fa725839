"""Lease records: what is written reads back the same, byte for byte as flannel writes it; anything else is refused
in one short printable sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overlayd.core.leases.codec import (
    WORD_LIMIT,
    RecordError,
    encode_attributes,
    format_subnet_name,
    parse_attributes,
    parse_lease,
    parse_subnet_name,
)
from overlayd.core.leases.lease import Attributes
from overlayd.core.leases.lease_record import LeaseRecord
from overlayd.core.leases.store import Record
from overlayd.core.network.addresses import Subnet
from overlayd.core.text.strict_json import SIZE_LIMIT
from support.strategies import attributes, json_values, junk_records, leases, record_of, subnets

VXLAN = (
    b'{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"7a:eb:33:ad:22:5c"}}'
)


@given(subnets())
def test_a_name_reads_back_as_its_subnet(subnet: Subnet) -> None:
    assert parse_subnet_name(format_subnet_name(subnet)) == subnet


@given(leases())
def test_a_lease_reads_back_as_it_was_written(lease: LeaseRecord) -> None:
    assert parse_lease(record_of(lease)) == lease


@given(attributes())
def test_a_value_is_compact_json_in_flannels_order(given_: Attributes) -> None:
    value = encode_attributes(given_)
    fields = list(json.loads(value))
    order = ["PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data", "Overlayd"]
    assert fields == [field for field in order if field in fields]
    assert fields[:2] == order[:2]
    assert value == json.dumps(json.loads(value), separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "value",
    [
        VXLAN,
        b'{"PublicIP":"10.99.0.1","PublicIPv6":null}',
        b'{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"host-gw"}',
        b'{"PublicIP":"10.99.0.1","PublicIPv6":"fd00::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":'
        b'"7a:eb:33:ad:22:5c"},"BackendV6Data":{"VNI":1,"VtepMAC":"7a:eb:33:ad:22:5d"}}',
        b'{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1","BackendType":"wireguard","BackendData":'
        b'{"PublicKey":"kLm9/+A=","Port":51820}}',
        b'{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1},'
        b'"Overlayd":{"NodeID":"3f2a","NodeName":"node1"}}',
    ],
)
def test_what_flannel_writes_is_read_and_written_byte_for_byte(value: bytes) -> None:
    assert encode_attributes(parse_attributes(value)) == value


def test_a_value_of_flannel_0_11_is_read() -> None:
    old = parse_attributes(
        b'{"PublicIP":"10.99.0.1","BackendType":"vxlan","BackendData":{"VtepMAC":"7a:eb:33:ad:22:5c"}}'
    )
    assert [str(ip) for ip in old.public_ips] == ["10.99.0.1"]
    assert old.backend_data == '{"VtepMAC":"7a:eb:33:ad:22:5c"}'


def test_fields_of_others_are_skipped() -> None:
    assert parse_attributes(VXLAN[:-1] + b',"Future":[{"x":1}]}') == parse_attributes(VXLAN)


def test_only_one_spelling_names_a_subnet() -> None:
    for name in [
        "subnets/10.244.3.0-24",
        "subnets/10.244.22.0-24&fd00:10:244:15::-64",
        "subnets/0.0.0.0-0&fd00:10:244:15::-64",
    ]:
        assert format_subnet_name(parse_subnet_name(name)) == name
    for name, reason in {
        "subnets/10.244.03.0-24": "names no subnet",
        "subnets/10.244.3.0-024": "another spelling of subnets/10.244.3.0-24",
        "subnets/10.244.3.1-24": "host bits",
        "subnets/10.244.3.0-33": "names no subnet",
        "subnets/10.244.3.0/24": "is not named like",
        "subnets/10.244.3.0-24\n": "is not named like",
        "subnets/10.244.3.0-24&": "is not named like",
        "subnets/10.244.3.0-24&fd00:0::-64": "another spelling",
        "subnets/10.244.3.0-24&fd00::1-64": "host bits",
        "subnets/0.0.0.0-0": "names no subnet",
        "subnets/١٠.244.3.0-24": "is not named like",
        "10.244.3.0-24": "is not named like",
        "config": "is not named like",
    }.items():
        with pytest.raises(RecordError, match=reason):
            parse_subnet_name(name)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "is empty"),
        (b"[]", "is not a JSON object"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 500, "nested"),
        (VXLAN + b"x", "is not JSON"),
        (VXLAN + b" " * SIZE_LIMIT, f"is larger than {SIZE_LIMIT} bytes"),
        (b"{}", "neither PublicIP nor PublicIPv6"),
        (b'{"PublicIP":"0.0.0.0","PublicIPv6":null}', "neither PublicIP nor PublicIPv6"),
        (b'{"PublicIP":7}', "gives PublicIP 7, which is no IPv4 address"),
        (b'{"PublicIP":true}', "gives PublicIP true"),
        (b'{"PublicIP":"fd00::1"}', "is no IPv4 address"),
        (b'{"PublicIP":"10.0.0.1","PublicIPv6":"10.0.0.1"}', "is no IPv6 address"),
        (b'{"PublicIP":"10.0.0.1","PublicIPv6":"FD00::1"}', "is written fd00::1"),
        (b'{"PublicIP":"10.0.0.1","PublicIPv6":"fd00::1%eth0"}', "is no IPv6 address"),
        (b'{"PublicIP":"10.0.0.1","PublicIPv6":"::"}', "is no address of a host"),
        (b'{"PublicIP":["\x7f"]}', 'gives PublicIP ["\\u007f"], which is no IPv4 address'),
        (b'{"PublicIP":"10.0.0.1","BackendData":NaN}', "holds NaN"),
        (b'{"PublicIP":"10.0.0.1","BackendData":-1e999}', "a number that is too large"),
        (b'{"PublicIP":"127.0.0.1"}', "is no address of a host"),
        (b'{"PublicIP":"224.0.0.1"}', "is no address of a host"),
        (b'{"PublicIP":"255.255.255.255"}', "is no address of a host"),
        (b'{"PublicIP":"240.0.0.5"}', "is no address of a host"),
        (b'{"PublicIP":"10.0.0.1","publicip":"10.0.0.2"}', "more than once"),
        (b'{"PublicIP":"10.0.0.1","BackendData":{"VNI":1,"VNI":2}}', "more than once"),
        (b'{"PublicIP":"10.0.0.1","BackendType":5}', "is not text"),
        (b'{"PublicIP":"10.0.0.1","BackendType":"\\u001b[2J"}', "unprintable"),
        (b'{"PublicIP":"10.0.0.1","Overlayd":[]}', "is not a JSON object"),
        (b'{"PublicIP":"10.0.0.1","Overlayd":{"NodeID":"a\\nb"}}', "unprintable"),
        (b'{"PublicIP":"10.0.0.1","Overlayd":{"NodeName":"\\u202egnp"}}', "unprintable"),
        (b'{"PublicIP":"10.0.0.1","Overlayd":{"NodeID":"\\ud800"}}', "unprintable"),
        (b'{"PublicIP":"10.0.0.1","Overlayd":{"NodeID":"%s"}}' % (b"x" * (WORD_LIMIT + 1)), "characters, at most"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason(value: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_attributes(value)
    assert reason in str(caught.value)


def assert_presentable(error: RecordError) -> None:
    assert str(error).isprintable()
    assert 0 < len(str(error)) < 200


@given(junk_records())
@example(Record("subnets/" + "9" * 1000 + "-24", b"", 1, 1, 0))
@example(Record("subnets/10.244.3.0-24", b'{"PublicIP":"%s"}' % (b"\\u001b" * 500), 1, 1, 0))
@example(Record("subnets/10.244.3.0-24", b'{"%s":1,"%s":1}' % (b"\\u001b" * 500, b"\\u001b" * 500), 1, 1, 0))
def test_anything_at_all_is_a_lease_or_a_short_reason(record: Record) -> None:
    try:
        lease = parse_lease(record)
    except RecordError as error:
        assert_presentable(error)
    else:
        assert format_subnet_name(lease.subnet) == record.name
        assert parse_attributes(encode_attributes(lease.attributes)) == lease.attributes
        hash(lease)


@given(st.data())
def test_any_json_in_any_field_is_read_or_refused(data: st.DataObject) -> None:
    fields = ["PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data", "Overlayd", "Other"]
    members = json.loads(VXLAN) | data.draw(st.dictionaries(st.sampled_from(fields), json_values, max_size=2))
    try:
        attributes_ = parse_attributes(json.dumps(members).encode())
    except RecordError as error:
        assert_presentable(error)
    else:
        assert parse_attributes(encode_attributes(attributes_)) == attributes_


@given(leases(), st.data())
def test_a_damaged_record_is_read_or_refused(lease: LeaseRecord, data: st.DataObject) -> None:
    value = bytearray(encode_attributes(lease.attributes))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_attributes(bytes(value))
    except RecordError as error:
        assert_presentable(error)
