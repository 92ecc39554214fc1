"""Gradio's image input, without its own check of the picture."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.uploads import checked_path

__all__ = ["photo_input"]


def photo_input(**options: Any) -> gr.Image:
    """An image input that returns the uploaded file unopened, as a path.

    Gradio would open it first and reject a broken or huge file with its own message. Here only
    core.photos.opening decides whether a file is a picture. The method is replaced on the one object,
    because Gradio writes a stub file beside every module that subclasses a component.
    """
    image = gr.Image(type="filepath", image_mode=None, **options)
    usual = image.preprocess

    def hand_over(payload: Any) -> Any:
        if payload is None or (payload.url and payload.url.startswith("data:")):
            return usual(payload)
        return payload.path and checked_path(payload.path)

    image.preprocess = hand_over  # type: ignore[method-assign]
    return image
