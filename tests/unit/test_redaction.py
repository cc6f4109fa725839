"""What is taken out of a bug report, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core.text.redaction import GONE, redact

SECRET = "hunter2-S3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"OVERLAYD_ETCD_PASSWORD={SECRET}",
        f"password: {SECRET}",
        f'{{"Backend": {{"Type": "wireguard", "PSK": "{SECRET}"}}}}',
        f"{{'token' : '{SECRET}'}}",
        f"api_key = {SECRET}; other",
        f"https://root:{SECRET}@10.0.0.1:2379",
        f"Authorization: Bearer {SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\nMIIB{SECRET}\n-----END RSA PRIVATE KEY-----\n",
        f"-----BEGIN PRIVATE KEY-----\nMIIB{SECRET}",
        f'"passphrase": "with \\" a quote {SECRET}"',
    ],
)
def test_a_secret_is_gone_and_that_there_was_one_is_told(text: str) -> None:
    redacted = redact(f"before\n{text}\n")
    assert SECRET not in redacted
    assert GONE in redacted
    assert redacted.startswith("before\n")


@pytest.mark.parametrize(
    "text",
    [
        "OVERLAYD_ETCD_PASSWORD_FILE=/etc/overlayd/password",
        "OVERLAYD_ETCD_KEYFILE=/etc/overlayd/node.key",
        "OVERLAYD_ETCD_ENDPOINTS=https://10.0.0.10:2379,https://10.0.0.11:2379",
        '{"PublicIP":"10.99.0.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0a:1b:2c:3d:4e:5f"}}',
        "10.244.2.0/24 via 10.244.2.0 dev ovl.1 proto 111 onlink",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    ],
)
def test_what_a_reader_needs_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=200))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(st.text(max_size=50), st.sampled_from(["password", "ETCD_TOKEN", "client-secret"]), st.text(max_size=50))
def test_a_named_secret_is_gone_wherever_it_stands(before: str, name: str, after: str) -> None:
    assert SECRET not in redact(f"{before}\n{name}={SECRET}\n{after}")
