"""Open the page: python app.py [--port 7860] [--gallery assets/town]. See --help."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # must stand before gradio is imported

ASSETS = Path(__file__).resolve().parent / "assets"


def parse_arguments() -> argparse.Namespace:
    """What can be chosen on the command line; a Space sets host and port by environment."""
    parser = argparse.ArgumentParser(description="Crossview's page.")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=os.environ.get("GRADIO_SERVER_PORT", "7860"))
    parser.add_argument("--gallery", type=Path, default=ASSETS / "town", help="gallery folder")
    parser.add_argument("--student", type=Path, default=ASSETS / "models" / "student")
    parser.add_argument("--teacher", type=Path, help="by default the one beside the student")
    parser.add_argument("--no-rerank", action="store_true", help="leave the teacher out")
    parser.add_argument("--examples", type=Path, default=ASSETS / "examples", help="photos to try")
    return parser.parse_args()


def main() -> None:
    """Open gallery and models once, and serve the page until it is stopped."""
    arguments = parse_arguments()
    from app.ui import launch_options, open_page
    from core.errors import CoreError
    from core.localization.localizer import teacher_for

    teacher = teacher_for(arguments.student, arguments.teacher, not arguments.no_rerank)
    with tempfile.TemporaryDirectory(prefix="crossview-") as scratch:
        try:
            blocks = open_page(
                arguments.gallery, arguments.student, teacher, arguments.examples, scratch
            )
        except CoreError as error:
            sys.exit(f"crossview: {error}")
        print(f"Crossview is open at http://{arguments.host}:{arguments.port}", flush=True)
        blocks.launch(server_name=arguments.host, server_port=arguments.port, **launch_options())


if __name__ == "__main__":
    main()
