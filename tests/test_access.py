"""Tests of agent/viewer/access.py: names, origins and tokens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.viewer.access import SECRET, Access


def test_tokens_say_what_one_may_do() -> None:
    """Each token has its right, and nothing near it has any; two viewers have different ones."""
    access, other = Access(), Access()
    assert access.right(access.control) == "control"
    assert access.right(access.watch) == "watch"
    wrong = [None, "", access.control[:-1], access.control + "x", access.control.swapcase(), other.control, "ü\udc00"]
    assert [access.right(token) for token in wrong] == [None] * len(wrong)
    assert len({access.control, access.watch, other.control, other.watch}) == 4
    assert min(map(len, (access.control, access.watch))) >= 32


def test_read_only_has_no_token_that_controls() -> None:
    """There is nothing to guess."""
    access = Access(read_only=True)
    assert access.control is None
    assert access.right(access.watch) == "watch"
    assert access.right(None) is None and access.right("None") is None


def test_an_authorization_header_needs_its_scheme() -> None:
    """Bearer and the token, nothing else."""
    access = Access()
    assert access.bearer(f"Bearer {access.watch}") == "watch"
    for header in (None, "", access.watch, f"Basic {access.watch}", "Bearer", f"Bearer  {access.watch}"):
        assert access.bearer(header) is None


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:1", "localhost", "[::1]:8080", "LOCALHOST:80"])
def test_this_machine_is_known_by_any_port(host: str) -> None:
    """`ssh -L` may have another port at its near end."""
    assert Access().knows_host(host)


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "192.168.0.9:8080", "0.0.0.0:8080",
     "127.0.0.1:8080@evil.example", "127.0.0.1:80:80", " 127.0.0.1", "127.0.0.1:x", "[::1", "localhost:999999"],
)  # fmt: skip
def test_other_names_are_not_known(host: str | None) -> None:
    """A page of another site that points its own name here is refused."""
    assert not Access().knows_host(host)


def test_a_wider_host_takes_addresses_and_its_own_name_only() -> None:
    """With --host 0.0.0.0 any address may be this machine's, but no name that somebody else can give it."""
    access = Access("0.0.0.0")
    assert access.knows_host("192.168.0.9:8080") and access.knows_host("[fe80::1]:8080")
    assert access.knows_host(f"{socket.gethostname()}:8080")
    assert not access.knows_host("evil.example:8080")


def test_the_origin_is_the_page_itself() -> None:
    """Scheme, name and port are those that were asked."""
    access, host = Access(), "127.0.0.1:8080"
    assert access.knows_origin(f"http://{host}", host)
    for origin in (None, "null", "", f"https://{host}", "http://127.0.0.1:8081", "http://localhost:8080", f"http://{host}/"):
        assert not access.knows_origin(origin, host)
    assert not access.knows_origin("http://evil.example", "evil.example")


def test_the_next_viewer_takes_the_kept_tokens(tmp_path: Path) -> None:
    """An open page finds the viewer that replaces its own; nobody but this user can read what is kept."""
    first, second = Access(kept=tmp_path), Access(kept=tmp_path, read_only=True)
    assert first.control is not None and second.control is None and first.watch == second.watch
    assert Access(kept=tmp_path).control == first.control
    file = tmp_path / SECRET
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)  # somebody may have read it
    assert Access(kept=tmp_path).control not in (None, first.control)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "x\ny", "a" * 32, f"{'a' * 32}\n{'a' * 32}", "\0" * 70])
def test_kept_nonsense_lets_nobody_in(tmp_path: Path, content: str) -> None:
    """A damaged file is no password: fresh tokens are taken, and kept in its place."""
    file = tmp_path / SECRET
    file.write_text(content)
    file.chmod(0o600)
    access = Access(kept=tmp_path)
    assert access.right("a" * 32) is None and access.right("x") is None and access.right(access.control) == "control"
    assert Access(kept=tmp_path).control == access.control


def test_a_link_is_no_place_for_tokens(tmp_path: Path) -> None:
    """What a link points to is neither read nor written."""
    (tmp_path / "elsewhere").write_text(f"{'a' * 32}\n{'b' * 32}")
    (tmp_path / "elsewhere").chmod(0o600)
    (tmp_path / SECRET).symlink_to(tmp_path / "elsewhere")
    assert Access(kept=tmp_path).right("a" * 32) is None
    assert (tmp_path / "elsewhere").read_text() == f"{'a' * 32}\n{'b' * 32}"
