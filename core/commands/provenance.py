"""The provenance in every report: command, date and machine."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

__all__ = ["provenance"]


def provenance(command: str, program: str = "python -m core") -> dict[str, Any]:
    """Command (without ``python -m core``), date and machine, for a report."""
    return {
        "command": f"{program} {command}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
    }
