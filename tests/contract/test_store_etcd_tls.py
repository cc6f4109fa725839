"""A real etcd behind TLS: who is let in, what is said to who is not, and certificates that change on disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from overlayd.core.leases.store import Changes, Put, Record, Snapshot, Store, StoreError, Transaction
from overlayd.store.etcd import Access, TlsFiles, certificates, open_etcd
from support.authority import Authority, KeyPair
from support.etcd import Etcd

PREFIX = "/test"
PATIENCE = 30.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that etcd does not know."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def etcd(authority: Authority) -> Generator[Etcd]:
    """Shows a certificate, asks for none."""
    with Etcd(tls=authority.issue("127.0.0.1", "localhost")) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def strict_etcd(authority: Authority) -> Generator[Etcd]:
    """Shows a certificate, and asks for one of the same authority."""
    with Etcd(tls=authority.issue("127.0.0.1"), clients=authority.ca) as etcd:
        yield etcd


@asynccontextmanager
async def opened(endpoint: str, ca: Path | None, pair: KeyPair | None = None) -> AsyncGenerator[Store]:
    tls = TlsFiles(ca, pair.cert, pair.key) if pair else TlsFiles(ca)
    async with open_etcd([endpoint], PREFIX, access=Access(tls)) as store:
        yield store


async def put(store: Store, value: bytes, lease_id: int = 0) -> int:
    return (await store.commit(Transaction((), (Put("config", value, lease_id),)))).revision


async def assert_serves(store: Store) -> None:
    """All three kinds of calls."""
    lease = (await store.grant(60)).lease_id
    revision = await put(store, b"{}", lease)
    async with store.watch(revision - 1) as watch:
        assert await anext(watch) == Changes(revision - 1, ())
        (record,) = (await anext(watch)).changes
    assert isinstance(record, Record)
    assert record == (await store.snapshot()).config
    assert await store.keepalive(lease) == 60


async def test_the_authority_alone_is_enough(etcd: Etcd, authority: Authority) -> None:
    async with opened(etcd.endpoint, authority.ca) as store:
        await assert_serves(store)
    async with opened(f"https://localhost:{etcd.client_port}", authority.ca) as store:
        await assert_serves(store)


async def test_without_an_authority_those_of_the_host_count(
    etcd: Etcd, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(etcd.endpoint, None) as store:
        with pytest.raises(StoreError, match="authority that is not trusted here"):
            await store.snapshot()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    async with opened(etcd.endpoint, None) as store:
        await assert_serves(store)


async def test_an_etcd_that_asks_for_certificates_gets_ours(strict_etcd: Etcd, authority: Authority) -> None:
    async with opened(strict_etcd.endpoint, authority.ca, authority.issue("node1")) as store:
        await assert_serves(store)


async def test_each_cause_of_a_failed_handshake_has_its_sentence(
    etcd: Etcd, strict_etcd: Etcd, authority: Authority, stranger: Authority
) -> None:
    async def complaint(store: Store) -> str:
        with pytest.raises(StoreError) as raised:
            await store.snapshot()
        return str(raised.value).removeprefix("etcd at ")

    where = f"https://127.0.0.1:{etcd.client_port}"
    async with opened(etcd.endpoint, stranger.ca) as store:
        assert await complaint(store) == (
            f"{where} shows a certificate of an authority that is not trusted here: "
            "--etcd-cafile names the right one"
        )
    async with opened(f"127.0.0.1:{etcd.client_port}", None) as store:
        assert await complaint(store) == (
            f"127.0.0.1:{etcd.client_port} ends every new connection: perhaps it expects TLS, so https://"
        )
    refusal = "accepts no client without a certificate that it trusts: see --etcd-certfile and --etcd-keyfile"
    async with opened(strict_etcd.endpoint, authority.ca) as store:
        assert (await complaint(store)).endswith(refusal)
    for pair in (stranger.issue("node1"), authority.issue("node1", days=(-2, -1))):
        async with opened(strict_etcd.endpoint, authority.ca, pair) as store:
            assert (await complaint(store)).endswith(refusal)
    with Etcd() as plain:
        async with opened(f"https://127.0.0.1:{plain.client_port}", authority.ca) as store:
            assert (await complaint(store)).endswith("does not answer in TLS: perhaps it is http:// there")


@pytest.mark.parametrize(
    ("name", "days", "sentence"),
    [
        ("etcd.example", (-1, 1), "shows a certificate for another name: --etcd-endpoints must call it as"),
        ("127.0.0.1", (-2, -1), "shows a certificate that has expired"),
        ("127.0.0.1", (1, 2), "shows a certificate that is not valid yet"),
    ],
)
async def test_a_certificate_of_etcds_that_is_not_good_is_named(
    authority: Authority, name: str, days: tuple[int, int], sentence: str
) -> None:
    with Etcd(tls=authority.issue(name, days=days)) as etcd:
        async with opened(etcd.endpoint, authority.ca) as store:
            with pytest.raises(StoreError, match=sentence):
                await store.snapshot()


async def test_every_member_may_have_a_certificate_of_its_own(authority: Authority) -> None:
    """Not a cluster, but two servers with names that differ: each is looked for under its own."""
    with Etcd(tls=authority.issue("localhost")) as one, Etcd(tls=authority.issue("127.0.0.1")) as other:
        endpoints = [f"https://localhost:{one.client_port}", other.endpoint]
        async with open_etcd(endpoints, PREFIX, access=Access(TlsFiles(authority.ca))) as store:
            await put(store, b"one")
            one.kill()
            with trio.fail_after(30):
                # a call that was on its way may fail with that server
                while (snapshot := await answered(store)) is None:  # noqa: ASYNC110
                    await trio.sleep(0.1)
            assert snapshot.config is None  # not the server that was asked before


async def answered(store: Store) -> Snapshot | None:
    try:
        return await store.snapshot()
    except StoreError:
        return None


def put_in_place(pair: KeyPair, target: KeyPair) -> None:
    """As certificates are renewed: each file replaced, one after the other."""
    shutil.copy(pair.key, target.key)
    shutil.copy(pair.cert, target.cert)


async def test_certificates_rotated_on_disk_are_taken_up_while_a_watch_goes_on(
    authority: Authority,
    stranger: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "overlayd.store.etcd")
    served, shown, ca = (
        KeyPair(tmp_path / "s.pem", tmp_path / "s.key"),
        KeyPair(tmp_path / "c.pem", tmp_path / "c.key"),
        tmp_path / "ca",
    )
    put_in_place(authority.issue("127.0.0.1"), served)
    put_in_place(authority.issue("node1"), shown)
    shutil.copy(authority.ca, ca)
    with Etcd(tls=served, clients=ca) as etcd:
        async with opened(etcd.endpoint, ca, shown) as store:
            revision = (await store.snapshot()).revision
            async with store.watch(revision) as watch:
                await anext(watch)

                # Half of a rotation, seen at a look in between: nothing changes, and it is said once.
                monkeypatch.setattr(certificates, "LOOK", 0.0)
                store._certificates.doubt()  # type: ignore[attr-defined]
                renewed = authority.issue("node1")
                shutil.copy(renewed.cert, shown.cert)
                for _ in range(3):
                    await store.snapshot()
                assert [record.message for record in caplog.records] == [
                    "new certificates for etcd can't be used; the old stay"
                ]
                assert "is not the key of" in str(caplog.records[0].__dict__["reason"])

                # The other half.  The watch stays on the connection that it has.
                shutil.copy(renewed.key, shown.key)
                revision = await put(store, b"renewed")
                assert caplog.records[-1].message == "new certificates for etcd read"
                with trio.fail_after(PATIENCE):
                    while not (changes := await anext(watch)).changes:
                        pass
                assert changes.revision == revision

            # Another authority altogether, on both sides: found out by the first call that fails.
            monkeypatch.setattr(certificates, "LOOK", 3600.0)
            await store.snapshot()
            etcd.kill()
            put_in_place(stranger.issue("127.0.0.1"), served)
            put_in_place(stranger.issue("node1"), shown)
            shutil.copy(stranger.ca, ca)
            etcd.start()
            with trio.fail_after(PATIENCE):
                while True:
                    try:
                        config = (await store.snapshot()).config
                    except StoreError:
                        await trio.sleep(0.1)
                    else:
                        break
            assert config is not None
            assert config.value == b"renewed"
            await assert_serves(store)
