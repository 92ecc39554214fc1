"""A real page on a tiny town, a real Chromium, and a proxy that notes whoever is asked for.

The browser is one that is already installed. Where there is none the tests skip, saying so;
with CROSSVIEW_REQUIRE_BROWSER set (as .ci/run does) that is a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.checkpoints import model_hash, save_model
from core.gallery.describing import tile_describer
from core.gallery.folder import Gallery, GallerySettings, build_gallery
from tests.canvases import tile_to_polar

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--gaia-url=http://127.0.0.1:9",
    "--google-apis-url=http://127.0.0.1:9",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-pings",
    "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication,"
    "InterestFeedContentSuggestions,CertificateTransparencyComponentUpdater,"
    "NetworkTimeServiceQuerying",
]
BROWSERS_OWN = {
    "accounts.google.com",
    "android.clients.google.com",
    "clients2.google.com",
    "content-autofill.googleapis.com",
    "optimizationguide-pa.googleapis.com",
    "update.googleapis.com",
}
"""Whom Chromium asks by itself, an empty page open: its sign-in, clock, updates and hints."""
EXAMPLE_ROW = 17
ROOT = Path(__file__).resolve().parents[2]
TWIN = {"pooling": "azimuth", "ground_size": [64, 256], "aerial_size": [128, 128], "dim": 8}
STUDENT = {"name": "convnet-s", "model": TWIN}
TEACHER = {"name": "geossk", "model": {"base": {"name": "convnet-s", **TWIN}}}


@dataclass
class Town:
    """A page that is being served. ``requested``: first lines of what the browser sent to the proxy,
    that is to any host but this one.
    """

    url: str
    gallery: Gallery
    photos: Path
    requested: list[str] = field(default_factory=list)

    @property
    def hosts_requested(self) -> set[str]:
        """Other hosts that the page made the browser ask."""
        targets = (line.split(" ")[1] for line in self.requested if line.count(" ") == 2)
        hosts = {re.sub(r"^https?://|[:/].*$", "", target) for target in targets}
        return hosts - BROWSERS_OWN


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def gps_exif(lat_deg: float, lon_deg: float, heading_deg: float, focal_35mm: int) -> Image.Exif:
    """What a phone writes: lens and place."""

    def parts(value: float) -> tuple[float, float, float]:
        minutes = abs(value) * 60 % 60
        return float(int(abs(value))), float(int(minutes)), round(minutes % 1 * 60, 4)

    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = focal_35mm
    exif.get_ifd(0x8825).update(
        {
            1: "N" if lat_deg >= 0 else "S",
            2: parts(lat_deg),
            3: "E" if lon_deg >= 0 else "W",
            4: parts(lon_deg),
            16: "T",
            17: heading_deg,
        }
    )
    return exif


def write_photos(folder: Path, gallery) -> None:
    """A panorama seen from the middle of one tile (so its place is known), and a phone's photo."""
    place = gallery.tile(EXAMPLE_ROW).place
    panorama = Image.fromarray(tile_to_polar(gallery.tile_image(EXAMPLE_ROW)))
    exif = gps_exif(place.lat_deg, place.lon_deg, 0.0, 24)
    panorama.save(folder / "examples" / "panorama.jpg", quality=95, exif=exif)
    noise = np.random.default_rng(3).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    phone = Image.fromarray(noise).resize((640, 480))
    phone.save(folder / "photos" / "phone.jpg", exif=gps_exif(60.17, 24.94, 123.0, 28))


class _Proxy(socketserver.ThreadingTCPServer):
    """Answers nobody and notes the first line of every request."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, requested: list[str]) -> None:
        self.requested = requested
        super().__init__(("127.0.0.1", 0), _ProxyRequest)


class _ProxyRequest(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.server.requested.append(self.rfile.readline(500).decode("latin-1").strip())


@pytest.fixture(scope="session")
def town(tiny_raster, tiny_student, tiny_teacher, tmp_path_factory) -> Iterator[Town]:
    """The page on a free port of this machine, started as a person starts it: python app.py."""
    folder = tmp_path_factory.mktemp("town")
    save_model(folder / "student", tiny_student, STUDENT, "")
    save_model(folder / "teacher", tiny_teacher, TEACHER, "")
    tag = model_hash(folder / "student")
    describe = tile_describer(tiny_student)
    settings = GallerySettings(tile_pixels=128, viewpoints=1)
    build_gallery(tiny_raster, folder / "gallery", describe, "student", tag, settings)
    gallery = Gallery.open(folder / "gallery")
    for name in ("examples", "photos"):
        (folder / name).mkdir()
    write_photos(folder, gallery)
    names = ("gallery", "student", "teacher", "examples")
    arguments = [part for name in names for part in (f"--{name}", str(folder / name))]
    with served(arguments, folder) as url:
        yield Town(url, gallery, folder / "photos")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory) -> Iterator[str]:
    """Address of the page on the town and models of this repository, or a skip without them."""
    for part in ("town/manifest.json", "models/student/config.json", "models/teacher/config.json"):
        if not (ROOT / "assets" / part).is_file():
            pytest.skip(f"assets/{part} is not there: make train writes it")
    with served([], tmp_path_factory.mktemp("shipped")) as url:
        yield url


@contextmanager
def served(arguments: list[str], folder: Path) -> Iterator[str]:
    """Run app.py on a free port, its words in a log in ``folder``; yields its address."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}/", folder / "page.log"
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), *arguments]
    with log.open("w") as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, cwd=folder)
        try:
            wait_for(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen, log: Path, seconds: float = 240) -> None:
    """Return once the page answers; fail with its log if it stops or does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                reply.read(1)
            return
        except OSError:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    pytest.fail(f"the page did not answer:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser(town):
    """Chromium, its every request to another host sent to a proxy that only notes it.

    It ends with its module: while Playwright's loop runs, no other test can start a loop of its own.
    """
    path = find_browser()
    if path is None:
        missing = "no Chromium or Chrome is installed (looked for: " + ", ".join(BROWSERS) + ")"
        if os.environ.get("CROSSVIEW_REQUIRE_BROWSER"):
            pytest.fail(f"{missing}, and CROSSVIEW_REQUIRE_BROWSER is set")
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    proxy = _Proxy(town.requested)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    address = f"--proxy-server=http://127.0.0.1:{proxy.server_address[1]}"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=[*QUIET, address])
        yield chromium
        chromium.close()
    proxy.shutdown()
    proxy.server_close()
