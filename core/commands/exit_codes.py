"""Exit codes and error messages of the command lines ``core`` and ``core.research``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import typer
from typer.main import get_command

from core.errors import CoreError

__all__ = ["run_app"]


def run_app(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command of an app and return its exit code.

    Args:
        app: the commands.
        name: the command that starts it, ``python -m core``.
        arguments: ``sys.argv`` by default.

    Returns:
        0: done. 1: an expected failure, written as one line on stderr. 2: wrong usage.

    """
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # library warnings are of no use at the terminal
                warnings.simplefilter("ignore")
            get_command(app)(args=arguments, prog_name=name)
    except CoreError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe; flushing the rest must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
