"""A verb with subcommands and a default: what is not the name of a subcommand goes to the hidden command `run`.

`anisora train CONFIG.yaml` and `anisora train captioner CONFIG.yaml` are both said so; a file named like a subcommand is
written `./captioner`.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DEFAULT = "run"


class WithDefault(TyperGroup):
    """The group that does so; use as `typer.Typer(cls=WithDefault)` with a command named `DEFAULT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default's name before words that name no subcommand."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
