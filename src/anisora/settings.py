"""One dataclass, many ways in: YAML, JSON, JSONL, `key=value` and flags all read the same fields, so they cannot drift.

`read(cls, data)` turns plain data into a checked dataclass and `plain(obj)` turns it back. An unknown key, a wrong
type or an illegal choice is one clear error that names the place and the nearest legal key; nothing is coerced in
silence (`"8"` is not a number, `8.0` is not an integer).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from anisora.errors import BadConfig, BadInput

T = TypeVar("T")


def setting(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field with a sentence about it.

    metadata: `key` is its name in files where that differs from the field's, `flag` its flag on the command line
    (`--name-of-field` unless given), `metavar` what the flag's value looks like.
    """
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known about one field: name, key in files, flag, type, default, sentence, look of a value."""

    name: str
    key: str
    flag: str
    type: Any
    default: Any
    help: str
    metavar: str | None


def settings_of(cls: type) -> list[Setting]:
    """The fields of a dataclass in their order."""
    hints = typing.get_type_hints(cls)
    return [
        Setting(
            name=field.name,
            key=field.metadata.get("key", field.name),
            flag=field.metadata.get("flag", "--" + field.name.replace("_", "-")),
            type=hints[field.name],
            default=field.default_factory() if field.default_factory is not MISSING else field.default,
            help=field.metadata.get("help", ""),
            metavar=field.metadata.get("metavar"),
        )
        for field in dataclasses.fields(cls)
        if field.init
    ]


# -- plain data -> dataclass -------------------------------------------------------------------------------------------


def read(cls: type[T], data: Any, *, where: str = "", error: type[BadInput] = BadConfig) -> T:
    """The dataclass `cls` made from a mapping of plain data (as YAML or JSON gives it).

    `where` names the place in messages ("shots.yaml, shot 2"). Raises `error` for anything that is not a mapping, for
    unknown or missing keys and for wrong types; what `cls` itself raises when it checks its values passes through,
    with the place put before it.
    """
    values = convert(cls, data, where=where, error=error)
    known = settings_of(cls)
    missing = [setting.key for setting in known if setting.default is MISSING and setting.name not in values]
    if missing:
        raise error(_at(where, "a key is missing"), expected=", ".join(missing))
    try:
        return cls(**values)
    except BadInput as problem:
        if not where or problem.what.startswith(where):
            raise
        raise type(problem)(
            f"{where}: {problem.what}", got=problem.got, expected=problem.expected, hint=problem.hint
        ) from None


def convert(cls: type, data: Any, *, where: str = "", error: type[BadInput] = BadConfig) -> dict[str, Any]:
    """The checked values of the keys that `data` holds, by field name; the rest of `cls` is left open."""
    if not isinstance(data, Mapping):
        raise error(_at(where, "not a set of keys and values"), got=_show(data), expected=f"the keys of {cls.__name__}")
    by_key = {setting.key: setting for setting in settings_of(cls)}
    check_keys(data, by_key, where=where, error=error)
    return {
        by_key[key].name: _convert(by_key[key].type, value, where=_join(where, key), error=error)
        for key, value in data.items()
    }


def check_keys(data: Mapping[str, Any], known: Iterable[str], *, where: str, error: type[BadInput] = BadConfig) -> None:
    """Raises `error`, naming the nearest known key, unless every key of `data` is known."""
    known = list(known)
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            raise error(
                _at(where, "unknown key"),
                got=repr(key),
                expected="one of " + ", ".join(known) if not near else None,
                hint=near[0] if near else None,
            )


def _convert(kind: Any, value: Any, *, where: str, error: type[BadInput]) -> Any:
    """`value` as type `kind`, or `error`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where=where, error=error)
    if origin is typing.Literal:
        if value in args:
            return value
        near = difflib.get_close_matches(str(value), [str(arg) for arg in args], n=1)
        raise error(where, got=_show(value), expected=" or ".join(map(repr, args)), hint=near[0] if near else None)
    if origin is tuple:
        return _convert_tuple(args, value, where=where, error=error)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(args[1], item, where=_join(where, key), error=error) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else read(kind, value, where=where, error=error)
    return _convert_scalar(kind, value, where=where, error=error)


def _convert_union(args: tuple[Any, ...], value: Any, *, where: str, error: type[BadInput]) -> Any:
    if value is None and type(None) in args:
        return None
    kinds = [arg for arg in args if arg is not type(None)]
    for kind in kinds:
        try:
            return _convert(kind, value, where=where, error=error)
        except error as problem:
            if len(kinds) == 1:
                raise
            last = problem
    raise error(where, got=_show(value), expected=" or ".join(_name(kind) for kind in kinds), hint=last.hint)


def _convert_tuple(args: tuple[Any, ...], value: Any, *, where: str, error: type[BadInput]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise error(where, got=_show(value), expected="a list")
    if args[-1] is Ellipsis:
        return tuple(
            _convert(args[0], item, where=f"{where}[{index}]", error=error) for index, item in enumerate(value)
        )
    if len(value) != len(args):
        raise error(where, got=_show(value), expected=f"a list of {len(args)} values")
    return tuple(
        _convert(kind, item, where=f"{where}[{index}]", error=error)
        for index, (kind, item) in enumerate(zip(args, value, strict=True))
    )


def _convert_scalar(kind: Any, value: Any, *, where: str, error: type[BadInput]) -> Any:
    is_number = isinstance(value, int | float | Fraction) and not isinstance(value, bool)
    if kind is Fraction and (is_number or isinstance(value, str)):
        try:
            return Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            pass
    elif kind is float and is_number and value == value and abs(value) != float("inf"):
        return float(value)
    elif kind is int and is_number and isinstance(value, int):
        return value
    elif kind is Path and isinstance(value, str | Path):
        return Path(value)
    elif kind not in (int, float) and isinstance(kind, type) and isinstance(value, kind):
        return value
    raise error(where, got=_show(value), expected=_name(kind))


def _name(kind: Any) -> str:
    names = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        Fraction: "a number or 'a/b'",
    }
    if typing.get_origin(kind) is tuple:
        return "a list"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _at(where: str, what: str) -> str:
    return f"{where}: {what}" if where else what


def _join(where: str, key: object) -> str:
    return f"{where}: {key}" if where and ":" not in where else f"{where}.{key}" if where else str(key)


# -- dataclass -> plain data -------------------------------------------------------------------------------------------


def plain(value: Any, *, skip_defaults: bool = False) -> Any:
    """Plain data that `read` turns back into an equal object: fractions become whole numbers or "a/b"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            setting.key: plain(getattr(value, setting.name), skip_defaults=skip_defaults)
            for setting in settings_of(type(value))
            if not (skip_defaults and getattr(value, setting.name) == setting.default)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item, skip_defaults=skip_defaults) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, skip_defaults=skip_defaults) for item in value]
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else str(value)
    return str(value) if isinstance(value, Path) else value


# -- files and key=value -----------------------------------------------------------------------------------------------


def load(path: str | Path, *, error: type[BadInput] = BadConfig) -> Any:
    """The plain data of a .yaml, .yml, .json or .jsonl file (JSONL gives a list). Raises `error` for anything else."""
    path = Path(path)
    readers: dict[str, Callable[[str], Any]] = {
        ".yaml": _parse_yaml,
        ".yml": _parse_yaml,
        ".json": json.loads,
        ".jsonl": _parse_jsonl,
    }
    if path.suffix.lower() not in readers:
        raise error(f"cannot read {path.name}", got=path.suffix or "no suffix", expected=", ".join(readers))
    import yaml

    try:
        return readers[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error("no such file", got=str(path)) from None
    except IsADirectoryError:
        raise error("a folder, not a file", got=str(path)) from None
    except PermissionError:
        raise error("no right to read the file", got=str(path)) from None
    except UnicodeDecodeError as problem:
        raise error(f"{path.name} is not UTF-8 text", got=f"byte {problem.start}", hint="saving it as UTF-8") from None
    except (json.JSONDecodeError, yaml.YAMLError) as problem:
        raise error(f"{path.name} cannot be parsed", got=" ".join(str(problem).split())) from None


def _parse_yaml(text: str) -> Any:
    import yaml

    return yaml.load(text, Loader=_yaml_loader())


@functools.cache
def _yaml_loader() -> type:
    """yaml's safe loader, to which `1e-4` is a number as it is in YAML 1.2; 1.1 wants `1.0e-4`."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader


def _parse_jsonl(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def override(data: Mapping[str, Any], assignments: Iterable[str], *, error: type[BadInput] = BadConfig) -> dict:
    """`data` with each `a.b=value` put in; values are read as YAML, so `3` is a number and `[1, 2]` a list."""
    result: dict[str, Any] = json.loads(json.dumps(plain(data)))
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals or not dotted:
            raise error("unreadable override", got=repr(assignment), expected="key=value", hint="steps=4")
        place = result
        *parents, last = dotted.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise error("override reaches into a value", got=dotted, expected=f"{parent} to hold keys")
        place[last] = _parse_yaml(text)
    return result
