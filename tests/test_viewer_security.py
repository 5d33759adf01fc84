"""Host x Origin x token x path: of all requests that a browser or a stranger can make, only the right ones are answered."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets.exceptions
from viewer_server import HANDSHAKE, Served, Shelf, served

from agent.viewer import server as servers
from agent.viewer.access import Access

PATHS = ("/", "/static/base.css", "/api/health", "/episodes", "/episodes/good.ep", "/ws")
OPEN = ("/", "/static/base.css")  # they hold no secrets, and the token comes after them
HOSTS = ("right", "localhost", "evil.example", "127.0.0.1.evil.example", None)
ORIGINS = ("right", "http://evil.example", "null", None)
TOKENS = ("control", "watch", "wrong", None)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an episode."""
    folder = tmp_path_factory.mktemp("episodes")
    (folder / "good.ep").write_bytes(b"packets")
    (folder / "broken.ep").write_bytes(b"")
    (folder.parent / "secret.ep").write_bytes(b"secret")
    with served(Shelf(folder)) as viewer:
        yield viewer


def headers_of(viewer: Served, host: str | None, origin: str | None, token: str | None) -> dict[str, str]:
    """The headers of one combination."""
    names = {"right": viewer.host, "localhost": f"localhost:{viewer.port}"}
    given = {} if host is None else {"Host": names.get(host, host)}
    if origin is not None:
        given["Origin"] = f"http://{given.get('Host', viewer.host)}" if origin == "right" else origin
    if token is not None:
        known = {"control": viewer.access.control, "watch": viewer.access.watch, "wrong": "0" * 32}
        given["Authorization"] = f"Bearer {known[token]}"
    return given


@pytest.mark.parametrize("path", PATHS)
def test_all_are_refused_but_the_right_ones(viewer: Served, path: str) -> None:
    """480 requests, 80 for each path: what is answered is exactly what the rules allow."""
    wrong = []
    for host, origin, token in itertools.product(HOSTS, ORIGINS, TOKENS):
        headers = headers_of(viewer, host, origin, token)
        status, _, body = viewer.request(path, headers | (HANDSHAKE if path == "/ws" else {}))
        allowed = host in ("right", "localhost")
        if path == "/ws":  # its token comes in its first message, not in a header
            allowed = allowed and origin == "right"
        else:
            allowed = allowed and origin in ("right", None) and (path in OPEN or token in ("control", "watch"))
        if (status in (101, 200)) != allowed:
            wrong.append(f"{host} {origin} {token}: {status}")
        if not allowed and (status not in (400, 401, 403) or viewer.access.watch.encode() in body or len(body) > 200):
            wrong.append(f"{host} {origin} {token}: {status} says {body[:80]!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_is_changed_over_http(viewer: Served, method: str) -> None:
    """Commands go over the socket alone."""
    headers = headers_of(viewer, "right", "right", "control")
    for path in ("/", "/episodes", "/episodes/good.ep", "/api/health"):
        assert viewer.request(path, headers, method)[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/server.py", "/static/....//server.py",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/vendor/../../server.py", "/static/..\\server.py",
        "/static/", "/static/vendor", "/static/base.css%00.js", "/static/base.css/", "/static/BASE.CSS", "/nothing",
        "/episodes/../secret.ep", "/episodes/..%2fsecret.ep", "/episodes/%2e%2e%2fsecret.ep", "/episodes/secret.ep",
        "/episodes/good.py", "/episodes/good", "/episodes/.ep", "/episodes/index.json", "/episodes/good.ep%00",
        "/episodes//etc/passwd", "/episodes/" + "a" * 300 + ".ep", "/episodes/good.ep/", "/ws", "/api",
    ],
)  # fmt: skip
def test_no_path_leads_elsewhere(viewer: Served, path: str) -> None:
    """Only the page's files and the episodes of the index can be had, whatever the path is made of."""
    status, _, body = viewer.request(path, headers_of(viewer, "right", "right", "control"))
    assert status in (307, 404) and b"secret" not in body and b"root:" not in body and b"import" not in body


def test_the_same_header_twice_is_refused(viewer: Served) -> None:
    """Which of the two would count is a question that no other program answers alike."""
    import http.client

    for name, values in (
        ("Host", [viewer.host, "evil.example"]),
        ("Origin", [f"http://{viewer.host}", "http://evil.example"]),
        ("Authorization", [f"Bearer {viewer.access.watch}", "Bearer x"]),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=20)
        connection.putrequest("GET", "/api/health", skip_host=True)
        headers = {"Host": [viewer.host], "Authorization": [f"Bearer {viewer.access.watch}"]} | {name: values}
        for key, each in headers.items():
            for value in each:
                connection.putheader(key, value)
        connection.endheaders()
        assert connection.getresponse().status == 400, name
        connection.close()


def test_what_is_answered_carries_its_rules(viewer: Served) -> None:
    """The page may load nothing from elsewhere, be framed by nobody, and leave no copy; answers are what they say."""
    kinds = {"/": "text/html", "/static/base.css": "text/css", "/static/main.js": "javascript", "/episodes": "json"}
    for path, kind in kinds.items():
        status, headers, _ = viewer.get(path, viewer.access.watch)
        assert status == 200 and kind in headers["content-type"]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';") and "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store" and "server" not in headers
    assert "content-security-policy" in viewer.get("/episodes")[1]  # refusals too


def test_markup_stays_data(viewer: Served) -> None:
    """What looks like markup in a name travels inside JSON, which browsers do not take for a page."""
    _, headers, body = viewer.get("/episodes", viewer.access.watch)
    assert json.loads(body)[0]["room"] == "<img src=x onerror=alert(1)>"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("token", ["", "0" * 32, "control of another"])
def test_a_socket_without_a_right_token_hears_nothing(viewer: Served, token: str) -> None:
    """It is closed with the code that the page knows, and was told nothing before."""
    viewer.hub.say("run", {"secret": 1})
    with viewer.page(token if token != "control of another" else Access().control) as page:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            page.socket.recv(20)
    assert closed.value.rcvd.code == servers.REFUSED


def test_a_socket_that_says_no_token_is_closed(viewer: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, or at once when it begins with something else."""
    monkeypatch.setattr(servers, "TOKEN_S", 0.2)
    for first in (None, {"type": "look", "rooms": []}, b"\x00", "x" * 100):
        begun = time.monotonic()
        with viewer.page(None) as page:
            if first is not None:
                page.say(first)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                page.socket.recv(20)
        assert closed.value.rcvd.code == servers.REFUSED and time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("message", "code"),
    [("no JSON", 1007), ({"type": "exec"}, 1007), ({"token": "again"}, 1007), (b"bytes", 1003), ("x" * 5000, 1009)],
)
def test_what_no_page_says_ends_the_connection(viewer: Served, message: Any, code: int) -> None:
    """Nonsense, bytes and long messages close this socket, and no other notices."""
    with viewer.page(viewer.access.control) as other, viewer.page(viewer.access.control) as page:
        page.say(message)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            while True:
                page.socket.recv(20)
        assert closed.value.rcvd.code == code
        other.say({"type": "do", "id": 5, "what": "pause", "room": None, "value": None})
        assert other.hear("done")["ok"]


def test_who_only_watches_changes_nothing(viewer: Served) -> None:
    """A watcher's commands are refused in a sentence, its keys and saliency do nothing; the one who controls is obeyed."""
    viewer.controls.asked.clear()
    with viewer.page(viewer.access.watch) as page:
        page.say({"type": "keys", "room": "you", "held": ["Space"]})
        page.say({"type": "saliency", "room": "latest", "how": "gradient"})
        for number, what in enumerate(("pause", "stop", "freeze", "restart", "same seed", "speed", "checkpoint")):
            page.say({"type": "do", "id": number, "what": what, "room": None, "value": None})
            answer = page.hear("done")
            assert answer["id"] == number and not answer["ok"] and "only watches" in answer["said"]
    assert viewer.controls.asked == []
    with viewer.page(viewer.access.control) as page:
        page.say({"type": "keys", "room": "you", "held": ["Space"]})
        page.say({"type": "do", "id": 1, "what": "pause", "room": "latest", "value": None})
        assert page.hear("done") == {"type": "done", "id": 1, "ok": True, "said": "pause: done"}
    assert viewer.controls.asked == [("keys", "you", ["Space"]), ("pause", "latest", None)]


def test_read_only_means_nobody_controls() -> None:
    """With --read-only the only token watches."""
    with served(access=Access(read_only=True)) as viewer, viewer.page(viewer.access.watch) as page:
        page.say({"type": "do", "id": 1, "what": "stop", "room": None, "value": None})
        assert not page.hear("done")["ok"]
        assert viewer.controls.asked == []
