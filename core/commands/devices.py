"""The device of an option, checked before any model is loaded."""

from __future__ import annotations

from core.errors import SettingError

__all__ = ["checked_device"]


def checked_device(name: str) -> str:
    """The name of an available device: cpu, cuda, cuda:1.

    Raises:
        SettingError: torch has no such device, or the machine has none.

    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            f"Device: got {name[:40]!r}, which this machine does not have, expected cpu"
            f"{' or cuda' if torch.cuda.is_available() else ''}. Leave --device out to use the CPU."
        ) from error
    return name
