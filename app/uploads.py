"""Open only what a visitor uploaded: no web address, and no other file of this machine.

Gradio fetches any web address in place of a file, in every field of every event, before it calls the
event's function. Its file route also relays a web address in its path. This page needs neither and
refuses both.
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
        """The arguments for an event's function.

        Raises:
            gr.Error: a file in the inputs is a web address.

        """
        if names_address(inputs):
            raise refusal()
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)


class LocalFileRoute:
    """ASGI middleware: it answers 403 if Gradio's file route is called with a web address."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse or pass on one request."""
        answer = self.app
        if scope["type"] == "http" and RELAYED.search(scope["path"]):
            answer = PlainTextResponse(text.NOT_UPLOADED, status_code=403)
        await answer(scope, receive, send)


def names_address(values: Any) -> bool:
    """Whether any file in JSON values is a web address."""
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

    Gradio checks only files that are marked in ``meta``; without the mark a request could name any
    file of this machine.

    Raises:
        gr.Error: it is another path.

    """
    if not (is_upload(path) or is_static_file(path)):
        raise refusal()
    return path


def is_upload(path: str) -> bool:
    """Whether a path lies in Gradio's folder of uploads."""
    return Path(path).resolve().is_relative_to(upload_folder())


def upload_folder() -> Path:
    """The folder where Gradio keeps and serves uploads; created if missing."""
    folder = Path(get_upload_folder()).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def refusal() -> gr.Error:
    """The error for any path but that of an uploaded file."""
    return gr.Error(text.NOT_UPLOADED, title=text.ERROR_TITLE, print_exception=False)
