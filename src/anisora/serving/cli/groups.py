"""A verb with subcommands that has a default one: `anisora curate videos/` is `anisora curate run videos/`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

#: the name under which the default subcommand is kept
DEFAULT = "run"


class DefaultGroup(TyperGroup):
    """Runs its subcommand `run` when the first word is none of the others (a folder of that name: `./select`)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
