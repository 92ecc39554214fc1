"""Refuse options that were typed but would have no effect."""

from __future__ import annotations

from collections.abc import Collection

import typer

from core.errors import SettingError

__all__ = ["refuse_beside"]


def refuse_beside(context: typer.Context, option: str, useless: Collection[str], why: str) -> None:
    """Refuse options of the running command that have no effect together with another option.

    Args:
        context: of the command.
        option: the other option, "--benchmark".
        useless: names of the parameters without effect.
        why: the reason, a clause about the other option.

    Raises:
        SettingError: one of them was typed.

    """
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in useless and source is not None and source.name == "COMMANDLINE":
            raise SettingError(
                f"Option {parameter.opts[0]}: got it beside {option}, expected one of the two, since "
                f"{why}. Leave {parameter.opts[0]} out."
            )
