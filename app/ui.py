"""The page as a whole: title, tabs, theme; nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from starlette.middleware import Middleware

from app import fragments, handlers, text
from app.api import build_api
from app.explain_tab import build_explain_tab
from app.handlers import Page
from app.locate_tab import build_locate_tab
from app.map_view import WEB, BaseMap
from app.uploads import LocalFileRoute, UploadsOnly
from core.localization.localizer import Localizer

__all__ = ["build_ui", "launch_options", "open_page", "serve_files"]

HOUR_S = 3600
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Liberation Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Liberation Mono", "monospace"]


def open_page(
    gallery: Path, student: Path, teacher: Path | None, examples: Path, scratch: str | Path
) -> gr.Blocks:
    """Open everything once, warm it up, and build the page.

    Args:
        gallery: gallery folder.
        student: model folder.
        teacher: model folder; None: nothing is re-ranked or explained.
        examples: folder of example photos; may be missing.
        scratch: empty folder for files that the page makes and serves.

    Raises:
        CoreError: a gallery or model that cannot be opened.
    """
    localizer = Localizer.open(gallery, student, teacher)
    localizer.locate(np.full((128, 512, 3), 127, np.uint8))  # the first answer is the slowest
    photos = tuple(p for p in sorted(examples.glob("*")) if p.suffix in (".jpg", ".png", ".webp"))
    page = Page(localizer, BaseMap.write(localizer.gallery, Path(scratch)), photos)
    serve_files(Path(scratch), *photos)
    return build_ui(page)


def build_ui(page: Page) -> gr.Blocks:
    """The whole page around an opened Localizer."""
    with UploadsOnly(
        title=text.TITLE, analytics_enabled=False, delete_cache=(HOUR_S, 24 * HOUR_S)
    ) as blocks:
        gr.HTML(
            fragments.masthead(len(page.gallery), handlers.is_rendered(page)),
            elem_id="masthead",
            js_on_load=None,
        )
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Locate", id="locate-tab"):
                locate_tab = build_locate_tab(page)
            if page.localizer.explains:
                with gr.Tab("Explain", id="explain-tab") as explain:
                    build_explain_tab(page, explain, locate_tab)
        locate_tab.explain_button.click(
            lambda: gr.Tabs(selected="explain-tab"), None, tabs, api_visibility="private"
        )
        build_api(page)
    return blocks


def serve_files(*folders: Path) -> None:
    """Allow the page to serve its own scripts and the given folders, and nothing else."""
    gr.set_static_paths([WEB, *folders])


def launch_options() -> dict[str, Any]:
    """Arguments of ``Blocks.launch`` for the look and the safety of the page."""
    return {
        "theme": _theme(),
        "css_paths": [WEB / "style.css"],
        # In the document itself: as a file it could come after the first click on what needs it.
        "head": f"<script>{(WEB / 'page.js').read_text()}</script>",
        "footer_links": ["api"],
        "max_file_size": "50mb",
        "state_session_capacity": 300,  # an explanation holds some 4 MB for its visitor
        "show_error": False,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "quiet": True,
        "run_history": False,
        "app_kwargs": {"middleware": [Middleware(LocalFileRoute)]},
    }


def _theme() -> gr.themes.Base:
    """System fonts only: a theme's web fonts would be fetched from another host."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.slate,
        font=FONTS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#12161a",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1a2026",
        block_border_width="1px",
        button_primary_background_fill="#e5481f",
        button_primary_background_fill_hover="#cf3d16",
        button_primary_background_fill_dark="#e5481f",
        button_primary_background_fill_hover_dark="#f25c35",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
    )
