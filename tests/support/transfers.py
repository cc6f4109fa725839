"""Both ends of transfers whose every byte is checked: TCP streams both ways at once, and datagrams of many sizes.

`python -m support.transfers serve` answers until its input closes; `python -m support.transfers stream ADDRESS
STREAMS BYTES SEED` and `… datagrams ADDRESS SEED` ask, and exit with 0 if all that came back was right.
"""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import sys
import threading
import time

PORT = 7100
PATIENCE = 60.0
_ASK = struct.Struct("!QQ")
"""A stream begins with the seed and the number of bytes that each side sends; its end is the digest."""
DATAGRAM_PATIENCE, TRIES = 0.5, 20
SIZES = (0, 1, 7, 8, 27, 28, 1000, 1443, 1444, 1445, 1471, 1472, 1473, 2000, 2916, 8191, 30_001, 60_000)


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def odd_pieces(data: bytes, seed: int) -> list[bytes]:
    """Cut as no program would: now a byte, now more than a superpacket holds."""
    chance = random.Random(seed)
    pieces, start = [], 0
    while start < len(data):
        size = chance.choice((1, 3, 536, 1431, 1432, 1433, 4097, 65_535, 100_001))
        pieces.append(data[start : start + size])
        start += size
    return pieces


def send_all(sock: socket.socket, seed: int, size: int) -> None:
    data = content(seed, size)
    for piece in odd_pieces(data, seed):
        sock.sendall(piece)
    sock.sendall(hashlib.sha256(data).digest())


def receive_all(sock: socket.socket, size: int) -> bool:
    """Whether the content is what the digest after it says."""
    digest, left = hashlib.sha256(), size
    while left:
        chunk = sock.recv(min(left, 1 << 16))
        if not chunk:
            return False
        digest.update(chunk)
        left -= len(chunk)
    told = b""
    while len(told) < digest.digest_size:
        chunk = sock.recv(digest.digest_size - len(told))
        if not chunk:
            return False
        told += chunk
    return told == digest.digest()


def both_ways(sock: socket.socket, seed: int, size: int) -> bool:
    sending = threading.Thread(target=send_all, args=(sock, seed, size), daemon=True)
    sending.start()
    sound = receive_all(sock, size)
    sending.join(PATIENCE)
    return sound


def serve_stream(sock: socket.socket) -> None:
    sock.settimeout(PATIENCE)
    seed, size = _ASK.unpack(sock.recv(_ASK.size, socket.MSG_WAITALL))
    sound = both_ways(sock, seed + 1, size)
    sock.sendall(b"sound!" if sound else b"broken")
    sock.close()


def serve() -> None:
    listening = socket.create_server(("", PORT))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", PORT))

    def accept() -> None:
        while True:
            threading.Thread(target=serve_stream, args=(listening.accept()[0],), daemon=True).start()

    def answer() -> None:
        while True:
            data, peer = datagrams.recvfrom(65_535)
            datagrams.sendto(data, peer)

    for task in (accept, answer):
        threading.Thread(target=task, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


def ask_stream(address: str, seed: int, size: int) -> bool:
    with socket.create_connection((address, PORT), PATIENCE) as sock:
        sock.sendall(_ASK.pack(seed, size))
        sound = both_ways(sock, seed, size)
        return sound and sock.recv(6, socket.MSG_WAITALL) == b"sound!"


def stream(address: str, streams: str, size: str, seed: str) -> bool:
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(ask_stream(address, int(seed) + 2 * n, int(size))))
        for n in range(int(streams))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    print(f"{results.count(True)} of {len(threads)} streams are sound")
    return results == [True] * len(threads)


def datagrams(address: str, seed: str) -> bool:
    """Each size until it came back; what comes back of another size, doubled perhaps, is told by its content."""
    for size in SIZES:
        wanted = content(int(seed) + size, size)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((address, PORT))
            if not any(echoes(sock, wanted) for _ in range(TRIES)):
                print(f"{size} bytes never came back")
                return False
    return True


def echoes(sock: socket.socket, wanted: bytes) -> bool:
    sock.send(wanted)
    deadline = time.monotonic() + DATAGRAM_PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            got = sock.recv(65_535)
        except TimeoutError:
            return False
        if got != wanted:
            sys.exit(f"{len(got)} bytes came back otherwise than they went")
        return True
    return False


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "serve":
        serve()
    elif verb == "stream":
        sys.exit(not stream(*arguments))
    else:
        sys.exit(not datagrams(*arguments))
