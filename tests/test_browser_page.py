"""The page in docs/browser, run in Chromium on the golden states of real artefacts."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.freeze.artefact import write
from agent.freeze.emit.to_onnx import emit_onnx
from agent.freeze.graph import Graph
from agent.freeze.integer import S16, IntegerGraph
from integer_graphs import Builder
from policies import artefact_of, continuous_graph, integer_picture_graph, picture_graph

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

# The outputs on all golden states at once, with what the page itself uses.
OUTPUTS = """async (folder) => {
    const policy = await load(folder), golden = arrays(await read(`${folder}/golden.npz`));
    const tensor = new ort.Tensor(policy.card.observation.dtype, golden.observation.data, golden.observation.shape);
    return [...(await policy.session.run({ observation: tensor })).output.data];
}"""
PAGE = Path(__file__).parent.parent / "docs" / "browser" / "index.html"
RUNTIME = "onnxruntime-web@1.30.0"
FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
SECONDS = 120
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with the page and onnxruntime-web from the npm registry, and the address at which it is served."""
    folder = tmp_path_factory.mktemp("site")
    try:
        command = ["npm", "pack", RUNTIME, "--prefer-offline", "--silent"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs npm and its registry, for onnxruntime-web")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            (folder / name).write_bytes(member.read())
    shutil.copy(PAGE, folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of Chromium."""
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs chromium: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def policies() -> dict[str, Graph | IntegerGraph]:
    """Policies for numbers and for pictures, with actions of both kinds, in floats and in integers."""
    small = Builder((4, 10, 10), "uint8").conv(16, 3).flatten().dense(128, S16, multiplier_bits=15).norm()
    return {
        "policy": Builder((8,), "float32").dense(64).dense(64).done(4),
        "norm": small.done(6),
        "every-kind": integer_picture_graph(),
        "picture": picture_graph(),
        "continuous": continuous_graph(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", policies())
def test_the_page_chooses_the_same_actions(site: tuple[Path, str], page: Any, name: str) -> None:
    """On 100 golden states the page chooses as the reference does; integers are the same; no other server is asked."""
    folder, address = site
    graph = policies()[name]
    artefact = artefact_of(graph, {"policy.onnx": emit_onnx(graph)})
    write(folder / name, artefact)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address if name == "policy" else f"{address}/?policy={name}")
    result = page.evaluate("result")
    wanted = artefact.golden.action
    assert result["same"] == result["count"] == len(wanted) == 100
    np.testing.assert_allclose(result["actions"], wanted, rtol=1e-5 if wanted.ndim == 2 else 0)
    output = np.reshape(page.evaluate(OUTPUTS, name), artefact.golden.output.shape)
    close = 0 if isinstance(graph, IntegerGraph) else 1e-5 * np.abs(artefact.golden.output).max()
    np.testing.assert_allclose(output, artefact.golden.output, rtol=0, atol=close)
    assert "The same action on 100 of 100" in page.inner_text("#verdict")
    assert page.inner_text("#game") == artefact.card.game
    assert asked and all(url.startswith(address) for url in asked)


@pytest.mark.slow
def test_the_page_tells_other_actions(site: tuple[Path, str], page: Any) -> None:
    """A policy that chooses otherwise than its golden states is told, and so is one that is not there."""
    folder, address = site
    graph, other = (Builder((8,), "float32", seed).dense(16).done(4) for seed in (0, 1))
    write(folder / "other", artefact_of(graph, {"policy.onnx": emit_onnx(other)}))
    page.goto(f"{address}/?policy=other")
    assert page.evaluate("result")["same"] < 90
    page.goto(f"{address}/?policy=nowhere")
    page.wait_for_function("document.getElementById('verdict').textContent.includes('nowhere/policy.json')")
