"""A real etcd that knows its users: passwords, permissions, and tokens that end while we live."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from overlayd.cli import main
from overlayd.core.leases.store import Changes, Put, Record, Store, StoreError, StoreRefused, Transaction
from overlayd.store.etcd import Access, AccessError, Login, open_etcd
from overlayd.store.etcd import watch as etcd_watch
from support.authority import Authority
from support.etcd import Etcd

USER, PASSWORD = "overlayd", "a pass:word ünlike others"
PREFIX = "/test"
TOKEN_LIFE = 1
"""Seconds."""
PATIENCE = 30.0


@pytest.fixture(scope="module")
def jwt_option(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tokens with an end that using them does not put off, unlike that of etcd's simple ones."""
    home = tmp_path_factory.mktemp("jwt")
    key = generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (home / "key").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (home / "pub").write_bytes(public)
    return f"--auth-token=jwt,pub-key={home / 'pub'},priv-key={home / 'key'},sign-method=RS256,ttl={TOKEN_LIFE}s"


@pytest.fixture(scope="module")
def etcd(jwt_option: str) -> Generator[Etcd]:
    with Etcd(jwt_option, "--bcrypt-cost=4") as etcd:
        trio.run(protect, etcd)
        yield etcd


async def protect(etcd: Etcd) -> None:
    """root and one user with the rights that docs/operations.md tells to give."""
    await etcd.ctl("user", "add", "root:r")
    await etcd.ctl("user", "grant-role", "root", "root")
    await etcd.ctl("role", "add", "overlay")
    await etcd.ctl("role", "grant-permission", "overlay", "readwrite", f"{PREFIX}/", "--prefix")
    await etcd.ctl("user", "add", USER, f"--new-user-password={PASSWORD}")
    await etcd.ctl("user", "grant-role", USER, "overlay")
    await etcd.ctl("auth", "enable")
    etcd.ctl_options = ["--user=root:r"]


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return path


@asynccontextmanager
async def opened(etcd: Etcd, password_file: Path, user: str = USER, prefix: str = PREFIX) -> AsyncGenerator[Store]:
    async with open_etcd([etcd.endpoint], prefix, access=Access(login=Login(user, password_file))) as store:
        yield store


def write_password(path: Path, content: str) -> None:
    path.write_text(content)


async def put(store: Store, value: bytes, lease_id: int = 0) -> int:
    return (await store.commit(Transaction((), (Put("config", value, lease_id),)))).revision


async def next_change(watch: object) -> Record:
    with trio.fail_after(PATIENCE):
        async for changes in watch:  # type: ignore[attr-defined]
            for change in changes.changes:
                assert isinstance(change, Record)
                return change
    raise AssertionError("the watch ended")


async def test_a_token_that_expires_is_renewed_unseen(
    etcd: Etcd, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_watch, "IDLE", 0.2)
    async with opened(etcd, password_file) as store:
        lease = (await store.grant(60)).lease_id
        start = await put(store, b"0", lease)
        async with store.watch(start) as watch:
            assert await anext(watch) == Changes(start, ())
            await trio.sleep(TOKEN_LIFE + 0.5)
            # A watch that stands outlives the token, and a new one is begun with a token that has expired.
            async with store.watch(start) as second:
                assert await anext(second) == Changes(start, ())
                await trio.sleep(TOKEN_LIFE + 0.5)
                assert await store.keepalive(lease) == 60
                revision = await put(store, b"1", lease)
                expected = Record("config", b"1", start, revision, lease)
                assert await next_change(watch) == await next_change(second) == expected
        await trio.sleep(TOKEN_LIFE + 0.5)
        snapshot = await store.snapshot()
        assert snapshot.config is not None
        await store.revoke(lease)


async def test_many_calls_at_once_share_one_new_token(
    etcd: Etcd, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overlayd.store.etcd import session

    asked: list[str] = []
    read = session.read_password

    def counted(path: Path) -> str:
        asked.append("")
        return read(path)

    async with opened(etcd, password_file) as store:
        monkeypatch.setattr(session, "read_password", counted)
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(store.snapshot)
            await etcd.ctl("user", "add", f"{secrets.token_hex(4)}:p")  # which makes all tokens void
        await store.snapshot()
    assert len(asked) == 3


async def test_a_wrong_password_and_a_changed_one(etcd: Etcd, password_file: Path, tmp_path: Path) -> None:
    user = f"user-{secrets.token_hex(4)}"
    await etcd.ctl("user", "add", f"{user}:old")
    await etcd.ctl("user", "grant-role", user, "overlay")
    write_password(password_file, "wrong")
    sentence = r"^etcd at 127.0.0.1:\d+ does not know this user with this password: correct --etcd-username or the"
    async with opened(etcd, password_file, user) as store:
        for _ in range(2):
            with pytest.raises(StoreRefused, match=sentence):
                await store.snapshot()
        with pytest.raises(StoreRefused, match=sentence):
            async with store.watch(1):
                pass
        write_password(password_file, "old\r\n")
        await store.snapshot()
        await etcd.ctl("user", "passwd", user, "--interactive=false", stdin=b"new")
        with pytest.raises(StoreRefused, match=sentence):
            await store.snapshot()
        write_password(password_file, "new")
        await store.snapshot()
        await trio.Path(password_file).unlink()
        await etcd.ctl("user", "passwd", user, "--interactive=false", stdin=b"newer")
        with pytest.raises(StoreRefused, match=r"--etcd-password-file .* can't be read: No such file"):
            await store.snapshot()


async def test_missing_permission_and_missing_user_are_named(etcd: Etcd, password_file: Path) -> None:
    async with opened(etcd, password_file, prefix="/other") as store:
        sentence = "lets this user not read and write there: `etcdctl role grant-permission ROLE readwrite"
        with pytest.raises(StoreRefused, match=sentence):
            await store.snapshot()
        with pytest.raises(StoreRefused, match=sentence):
            await put(store, b"")
        with pytest.raises(StoreRefused, match=sentence):
            async with store.watch(1):
                pass
    async with open_etcd([etcd.endpoint], PREFIX) as store:
        sentence = "asks for a user: give --etcd-username and --etcd-password-file"
        with pytest.raises(StoreRefused, match=sentence):
            await store.snapshot()
        with pytest.raises(StoreRefused):
            async with store.watch(1):
                pass


async def test_a_password_may_be_given_before_etcd_asks_for_it_and_a_restart_forgets_no_more_than_tokens(
    password_file: Path,
) -> None:
    """With etcd's simple tokens, which live in the memory of a member."""
    with Etcd("--bcrypt-cost=4") as etcd:
        async with opened(etcd, password_file) as store:
            lease = (await store.grant(60)).lease_id
            start = await put(store, b"open", lease)
            await protect(etcd)
            await put(store, b"protected", lease)
            etcd.kill()
            etcd.start()
            with trio.fail_after(PATIENCE):
                while True:
                    try:
                        await store.snapshot()
                    except StoreRefused:
                        raise
                    except StoreError:
                        await trio.sleep(0.1)
                    else:
                        break
            async with store.watch(start) as watch:
                assert (await next_change(watch)).value == b"protected"
            assert await store.keepalive(lease) == 60


def test_the_command_line_gets_in_over_tls_with_certificate_and_password(
    tmp_path: Path, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path / "authority")
    mine = authority.issue("node1")
    shown = [f"--etcd-cafile={authority.ca}", f"--etcd-certfile={mine.cert}", f"--etcd-keyfile={mine.key}"]
    config = tmp_path / "network.json"
    config.write_text('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}')
    with Etcd("--bcrypt-cost=4", tls=authority.issue("127.0.0.1"), clients=authority.ca) as etcd:
        etcd.ctl_options = [f"--cacert={authority.ca}", f"--cert={mine.cert}", f"--key={mine.key}"]
        trio.run(protect, etcd)
        where = ["--etcd-endpoints", etcd.endpoint, "--etcd-prefix", PREFIX, *shown]
        # etcd takes who shows a certificate for the user that it is made out to, and there is none.
        assert main(["config", "set", str(config), *where]) == 2
        assert "lets this user not read and write there" in capsys.readouterr().err
        who = ["--etcd-username", USER, "--etcd-password-file", str(password_file)]
        assert main(["config", "set", str(config), *where, *who]) == 0
        assert main(["config", "show", *where, *who]) == 0
        assert "10.244.0.0/16" in capsys.readouterr().out


async def test_a_password_file_that_is_of_no_use_is_refused_at_once(
    tmp_path: Path, password_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = Etcd()
    try:
        for content, sentence in (
            (b"\n", "is empty"),
            (b"\xff\xfe", "something else than text"),
            (None, "can't be read"),
        ):
            path = tmp_path / "bad"
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(AccessError, match=f"^--etcd-password-file {path} .*{sentence}"):
                async with opened(nowhere, path):
                    pass
        caplog.set_level(logging.WARNING, "overlayd.store.etcd")
        async with opened(nowhere, password_file):
            assert not caplog.records
        await trio.Path(password_file).chmod(0o644)
        async with opened(nowhere, password_file):
            assert [record.message for record in caplog.records] == [
                "every user of this host can read etcd's password"
            ]
    finally:
        nowhere.remove()
