"""Who is let in: the hosts and origins that may ask, and the tokens that say what one may do."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import stat
from pathlib import Path
from typing import Literal

Right = Literal["control", "watch"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECRET = ".viewer"  # in the folder of runs: both tokens, a line each
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")
_NAME = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")


class Access:
    """The two tokens of one viewer, and the names under which it may be called.

    A page of another site can make a browser ask this server by a name of its own (DNS rebinding); what it cannot do is
    send a Host header that is an address, or a name of this machine.
    """

    def __init__(self, host: str = "127.0.0.1", *, read_only: bool = False, kept: Path | None = None) -> None:
        """With `kept`, a folder, the tokens are those of the last viewer there: an open page finds the next one again."""
        control, self.watch = (None if kept is None else _kept(kept)) or _fresh()
        self.control = None if read_only else control
        self._names = {*LOOPBACK}
        self._any_address = host not in LOOPBACK
        if self._any_address:
            self._names |= {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}

    def right(self, token: str | None) -> Right | None:
        """Return what a token allows, None when it is not one of ours; it takes as long whatever the token is."""
        given = (token or "").encode("utf-8", "replace")
        # An absent token is compared as well, with one that nobody can know.
        controls = secrets.compare_digest(given, (self.control or secrets.token_urlsafe(24)).encode())
        watches = secrets.compare_digest(given, self.watch.encode())
        return "control" if controls else "watch" if watches else None

    def bearer(self, header: str | None) -> Right | None:
        """Return what an Authorization header allows."""
        scheme, _, token = (header or "").partition(" ")
        return self.right(token if scheme.lower() == "bearer" else None)

    def knows_host(self, host: str | None) -> bool:
        """Return whether a Host header names this machine; the port is free, for `ssh -L` may change it."""
        match = _NAME.fullmatch(host or "")
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        return name in self._names or (self._any_address and _is_address(name))

    def knows_origin(self, origin: str | None, host: str | None) -> bool:
        """Return whether a page with this Origin came from the very server that `host` names."""
        return self.knows_host(host) and origin == f"http://{host}"


def _fresh() -> tuple[str, str]:
    return secrets.token_urlsafe(24), secrets.token_urlsafe(24)


def _kept(folder: Path) -> tuple[str, str] | None:
    """Return the tokens kept in `folder`, which only this user can read; None where they cannot be kept.

    Where there are none, or what is there is damaged or readable for others, new ones are kept.
    """
    file = folder / SECRET
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_private(file) or _read(file) is None:
            file.unlink(missing_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as new:
                new.write("\n".join(_fresh()))
        return _read(file)
    except OSError:
        return None


def _read(file: Path) -> tuple[str, str] | None:
    """Return the two tokens in a file, None when it holds something else."""
    try:
        control, watch = file.read_bytes()[:200].decode("ascii").split()
    except ValueError:
        return None
    return (control, watch) if _TOKEN.fullmatch(control) and _TOKEN.fullmatch(watch) and control != watch else None


def _is_private(file: Path) -> bool:
    """Return whether a plain file of this user's is there that nobody else may read."""
    try:
        found = file.lstat()
    except OSError:
        return False
    ours = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
    return stat.S_ISREG(found.st_mode) and ours


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False
