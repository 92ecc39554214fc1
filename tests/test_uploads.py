"""Who names a web address, or a file of this machine, as a photo: ``pytest tests/test_uploads.py``.

Gradio itself refuses addresses of this machine and its network; here it is made to believe that
127.0.0.1 is a public host, so that a small server can count who asks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import safehttpx
from gradio import processing_utils
from gradio.routes import App
from PIL import Image
from starlette.testclient import TestClient

from app import text
from app.handlers import Page
from app.map_view import BaseMap
from app.ui import build_ui, launch_options, serve_files
from app.uploads import names_address
from core.localization.localizer import Localizer
from tests.conftest import in_a_loop

META = {"_type": "gradio.FileData"}


class Elsewhere(ThreadingHTTPServer):
    """A server that a page could be sent to; ``requested``: the paths that somebody wanted."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requested: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/photo.jpg"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"fetched")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere(monkeypatch) -> Iterator[Elsewhere]:
    async def anybody(_: str) -> str:
        return "127.0.0.1"

    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1"])
    monkeypatch.setattr(safehttpx, "async_validate_url", anybody)
    server = Elsewhere()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "example.png"
    Image.new("RGB", (64, 64), "green").save(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def uploads(tmp_path_factory) -> Iterator[Path]:
    """What Gradio takes for the folder of its uploads."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def blocks(tiny_gallery, tiny_student, example, uploads, tmp_path_factory) -> gr.Blocks:
    """The whole page, not served."""
    folder = tmp_path_factory.mktemp("page")
    serve_files(folder, example)
    base = BaseMap.write(tiny_gallery, folder)
    page = Page(Localizer(tiny_gallery, tiny_student), base, (example,))
    return in_a_loop(lambda: build_ui(page))


def preprocessed(blocks: gr.Blocks, inputs: list[Any], event: Any = None) -> list[Any]:
    """What an event's function (by default that of /locate) would be called with."""
    event = event or next(e for e in blocks.fns.values() if e.api_name == "locate")
    return asyncio.run(blocks.preprocess_data(event, inputs, None))


def photos(url: str) -> dict[str, dict[str, Any]]:
    """Ways to name a web address as a photo."""
    return {
        "path": {"path": url, "meta": META},
        "path without meta": {"path": url},
        "stream": {"path": url, "meta": META, "is_stream": True},
        "address alone": {"path": None, "url": url, "meta": META},
    }


@pytest.mark.parametrize("way", photos(""))
def test_a_web_address_is_refused_and_never_asked(blocks, elsewhere, way):
    with pytest.raises(gr.Error) as caught:
        preprocessed(blocks, [photos(elsewhere.url)[way], *[None] * 5])
    assert caught.value.message == text.NOT_UPLOADED
    assert elsewhere.requested == []


def test_nor_anywhere_else_in_any_event(blocks, elsewhere):
    events = [event for event in blocks.fns.values() if event.inputs and event.fn]
    assert len(events) > 10
    for event in events:
        inputs = [photos(elsewhere.url)["path"] for _ in event.inputs]
        with pytest.raises(gr.Error):
            preprocessed(blocks, inputs, event)
        with pytest.raises(gr.Error):
            preprocessed(blocks, [[{"deep": value} for value in inputs]] * len(inputs), event)
    assert elsewhere.requested == []


@pytest.mark.parametrize("route", ["file=", "file/"])
def test_the_file_route_fetches_nothing(blocks, elsewhere, route):
    options = launch_options()["app_kwargs"]
    served = in_a_loop(lambda: App.create_app(blocks, app_kwargs=options))
    answer = TestClient(served).get(f"/gradio_api/{route}{elsewhere.url}")
    assert (answer.status_code, answer.text) == (403, text.NOT_UPLOADED)
    assert elsewhere.requested == []


def test_uploads_and_examples_are_handed_over(blocks, uploads, example):
    upload = uploads / "mine.png"
    Image.new("RGB", (64, 64), "red").save(upload)
    for path in (upload, example):
        seen = f"http://127.0.0.1:7860/gradio_api/file={path}"
        photo = {"path": str(path), "url": seen, "meta": META, "orig_name": path.name}
        assert preprocessed(blocks, [photo, *[None] * 5])[0] == str(path)


@pytest.mark.parametrize("more", [{}, {"is_stream": True}, {"orig_name": "a.svg"}])
def test_a_file_of_this_machine_is_refused(blocks, tmp_path_factory, more):
    """Gradio looks only at files that say so in meta; the rest it would have opened."""
    path = tmp_path_factory.mktemp("private") / "own.png"
    Image.new("RGB", (64, 64), "red").save(path)
    with pytest.raises(gr.Error) as caught:
        preprocessed(blocks, [{"path": str(path), **more}, *[None] * 5])
    assert caught.value.message == text.NOT_UPLOADED


def test_addresses_are_found_wherever_they_stand():
    url = "https://example.com/a.jpg"
    for place in (url, " " + url, "HTTP://example.com"):
        assert names_address([1, {"deep": [{"path": place}]}])
        assert names_address({"path": "", "url": place})
    # Where the browser sees a file that lies here.
    assert not names_address([{"path": "/tmp/a.jpg", "url": url}, "https://example.com", None])
