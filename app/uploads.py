"""Open only what a visitor uploaded: no web address, and no other file of this machine.

Gradio fetches any web address that stands where a file could, in every field of every event, before
it calls the event's own function. Its file route also relays a web address in its path. This page
needs neither, and refuses both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder, is_static_file
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app import text

__all__ = ["LocalFileRoute", "UploadsOnly", "checked_path", "is_upload", "upload_folder"]

ADDRESS = re.compile(r"\s*https?:", re.IGNORECASE)
RELAYED = re.compile(r"/file[=/]\s*https?:", re.IGNORECASE)


class UploadsOnly(gr.Blocks):
    """A page that refuses web addresses in place of files, before Gradio fetches them."""

    async def preprocess_data(
        self,
        block_fn: BlockFunction,
        inputs: list[Any],
        state: SessionState | None,
        explicit_call: bool = False,
    ) -> list[Any]:
        """What an event's function is called with.

        Raises:
            gr.Error: a file that is a web address stands anywhere in the inputs.

        """
        if names_address(inputs):
            raise refusal()
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)


class LocalFileRoute:
    """ASGI middleware: a request for a web address by Gradio's file route is answered with 403."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse or pass on one request."""
        answer = self.app
        if scope["type"] == "http" and RELAYED.search(scope["path"]):
            answer = PlainTextResponse(text.NOT_UPLOADED, status_code=403)
        await answer(scope, receive, send)


def names_address(values: Any) -> bool:
    """Whether somewhere in JSON values a file is a web address."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            # A page's own files have both: a path here, and the address where the browser sees it.
            place = value.get("path") or value.get("url")
            if isinstance(place, str) and ADDRESS.match(place):
                return True
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return False


def checked_path(path: str) -> str:
    """The path of a file that was uploaded, or that the page itself shows (an example).

    Gradio looks only at files whose record says so in ``meta``; whoever leaves that out could name
    any file of this machine.

    Raises:
        gr.Error: it is another path.

    """
    if not (is_upload(path) or is_static_file(path)):
        raise refusal()
    return path


def is_upload(path: str) -> bool:
    """Whether a path lies where Gradio keeps what visitors upload."""
    return Path(path).resolve().is_relative_to(upload_folder())


def upload_folder() -> Path:
    """Where Gradio keeps uploads and serves them from; made if it is not there."""
    folder = Path(get_upload_folder()).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def refusal() -> gr.Error:
    """The error for a caller who names anything but an uploaded file."""
    return gr.Error(text.NOT_UPLOADED, title=text.ERROR_TITLE, print_exception=False)
