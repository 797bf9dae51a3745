"""Flags made from the fields of `Request`, so that a field cannot exist without its flag."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

import typer

from anisora.errors import BadRequest
from anisora.generation.request_files import parse_guide, parse_lora, parse_size
from anisora.records import Request
from anisora.settings import Setting, convert, settings_of

#: how the one or many words of a flag become the plain value of its field, where they are not that already
_FROM_WORDS: dict[str, Callable[[Any], Any]] = {
    "guides": lambda words: [parse_guide(word) for word in words],
    "lora": lambda words: [parse_lora(word) for word in words],
    "size": parse_size,
}

#: field types that the command line itself checks; everything else comes as text
_WORD_TYPES: dict[Any, type] = {int: int, float: float, bool: bool}


def request_parameters() -> list[inspect.Parameter]:
    """One optional parameter a field of `Request`, for `with_parameters`."""
    return [_parameter(setting) for setting in settings_of(Request)]


def _parameter(setting: Setting) -> inspect.Parameter:
    kind: Any = list[str] if setting.name in ("guides", "lora") else _WORD_TYPES.get(_inner(setting.type), str)
    choices = typing.get_args(_inner(setting.type)) if typing.get_origin(_inner(setting.type)) is Literal else ()
    option = typer.Option(
        None, setting.flag, help=_help(setting), metavar="|".join(choices) or setting.metavar, show_default=False
    )
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def _inner(kind: Any) -> Any:
    """`kind` without `| None`."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    return parts[0] if isinstance(kind, types.UnionType) else kind


def _help(setting: Setting) -> str:
    text = setting.help[:1].upper() + setting.help[1:] + "."
    shown = setting.default not in (None, "", ()) and not isinstance(setting.default, bool)
    return f"{text} Default: {setting.default}." if shown else text


def with_parameters(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    """`function` with its `**fields` spelled out as `parameters`, so that typer sees each as a flag."""
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    everything = [*parameters, *keyword_only]
    function.__signature__ = signature.replace(parameters=everything)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in everything}
    return function


def given_fields(flags: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Request` that were given as flags, checked and converted; what was not given is left out."""
    plain = {
        name: _FROM_WORDS.get(name, lambda value: value)(value)
        for name, value in flags.items()
        if value is not None and value != []
    }
    keys = {setting.name: setting.key for setting in settings_of(Request)}
    return convert(Request, {keys[name]: value for name, value in plain.items()}, error=BadRequest)
