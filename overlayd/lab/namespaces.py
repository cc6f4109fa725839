"""The system calls that isolate a lab: unshare(2), which Python has from 3.12 on, and mount(2), which it lacks."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# linux/mount.h
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)

USER_NAMESPACE_SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "10000"),
)
"""The sysctls by which systems forbid user namespaces to ordinary users: name, forbidding and allowing value.

They are of Debian's kernel patch, of Ubuntu's AppArmor, and of every kernel."""


class Forbidden(Exception):
    """This user may not create namespaces here; the text says what would allow it."""


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def unshare(flags: int) -> None:
    """Move the calling process (which must have one thread) into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount {kind or source} on {target}")


def unshare_all() -> None:
    """Move to new mount, PID (for the next child) and network namespaces.

    Without the privilege for that, they are in a new user namespace in which this user is root.  Raises Forbidden.
    """
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET
    try:
        unshare(flags)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        try:
            unshare(CLONE_NEWUSER)
            # user_namespaces(7): without privilege a user may map only itself, and must deny setgroups(2) first.
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
            unshare(flags)
        except OSError as error:
            raise Forbidden(explain_refusal(str(error), read_switches())) from error


def read_switches() -> dict[str, str]:
    """Read the current values of those sysctls that this kernel has."""
    paths = {name: Path("/proc/sys", *name.split(".")) for name, _, _ in USER_NAMESPACE_SWITCHES}
    return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}


def explain_refusal(reason: str, switches: dict[str, str]) -> str:
    """Explain why the kernel refused user namespaces, and name the command that allows them."""
    for name, forbids, allows in USER_NAMESPACE_SWITCHES:
        if switches.get(name) == forbids:
            return (
                f"user namespaces are forbidden to ordinary users here ({name} = {forbids}): "
                f"run `sudo sysctl -w {name}={allows}`, or the lab as root"
            )
    return (
        f"this system refuses user namespaces to ordinary users ({reason}); in a container, its seccomp or "
        "AppArmor profile may be why: run the lab as root, or the container with --privileged"
    )
