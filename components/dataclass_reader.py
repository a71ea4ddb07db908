"""Dataclasses from mappings, lists and values (of YAML or JSON), strictly, with the standard library alone.

"3" is no integer and 1 no boolean; an integer is taken where a float is expected. Every mistake is told at once, each
by its dotted key.
"""

import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from components.errors import ConfigError, nearest

T = TypeVar("T")
EXPECTED = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, eq=False)
class ByName:
    """In an annotation: the `name` in a section chooses one of these dataclasses."""

    kinds: Mapping[str, type[Any]]
    default: type[Any]  # of a section without a name


def read_dataclass(kind: type[T], value: Any, source: str = "", finite: bool = True) -> T:
    """An object of the dataclass `kind`.

    `source` names the file in messages; without `finite`, nan and inf are numbers, too.

    Raises:
        ConfigError: one line for each key that is unknown or missing, value of another type, and combination that a
            dataclass refuses with a ValueError.
    """
    reader = _Reader(finite)
    found: T = reader.read(kind, value, ())
    if reader.mistakes:
        raise ConfigError("\n".join(f"{source}: {mistake}" if source else mistake for mistake in reader.mistakes))
    return found


class _Reader:
    """What `read` returns is of use only where it has noted no mistake."""

    def __init__(self, finite: bool) -> None:
        self.finite = finite
        self.mistakes: list[str] = []

    def read(self, kind: Any, value: Any, key: tuple[str, ...]) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is Any:
            return value
        if choice := next((said for said in getattr(kind, "__metadata__", ()) if isinstance(said, ByName)), None):
            return self._read_named(choice, value, key)
        if origin in (Union, types.UnionType):
            return self._read_union(arguments, value, key)
        if origin is Literal:
            if not any(value == known and type(value) is type(known) for known in arguments):
                self._unknown_value(key, value, arguments)
        elif origin is tuple:
            if isinstance(value, (list, tuple)):
                return tuple(self.read(arguments[0], item, (*key, str(i))) for i, item in enumerate(value))
            self._wrong(key, "a list", value)
        elif origin is dict or is_dataclass(kind):
            if isinstance(value, Mapping):
                return (self._read_dict if origin is dict else self._read_fields)(kind, value, key)
            self._wrong(key, "a mapping", value)
        elif kind is float and type(value) in (int, float):
            return self._read_float(value, key)
        elif type(value) is not kind:
            self._wrong(key, EXPECTED[kind], value, ": put it in quotes" if kind is str and value is not None else "")
        return value

    def _read_fields(self, kind: Any, value: Mapping[Any, Any], key: tuple[str, ...]) -> Any:
        hints = get_type_hints(kind, include_extras=True)
        known = {field.name: field for field in fields(kind)}
        before = len(self.mistakes)
        given = {}
        for name, item in value.items():
            if name in known:
                given[name] = self.read(hints[name], item, (*key, name))
            else:
                hint = f"{nearest(str(name), known)}. Known keys: {', '.join(known)}"
                self._note((*key, str(name)), f"unknown key{hint}.")
        for name, field in known.items():
            if name not in value and field.default is MISSING and field.default_factory is MISSING:
                self._note((*key, name), "missing; this key is required.")
        if len(self.mistakes) == before:
            try:
                return kind(**given)
            except ValueError as error:
                self._note(key, f"{error}.")
        return None

    def _read_dict(self, kind: Any, value: Mapping[Any, Any], key: tuple[str, ...]) -> dict[str, Any]:
        for name in value:
            if type(name) not in (str, int):
                self._note(key, f"expected names as keys, found {name!r}: put it in quotes.")
        return {str(name): self.read(get_args(kind)[1], item, (*key, str(name))) for name, item in value.items()}

    def _read_named(self, choice: ByName, value: Any, key: tuple[str, ...]) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(key, "a mapping", value)
        if "name" not in value:
            return self.read(choice.default, value, key)
        if not isinstance(value["name"], str) or value["name"] not in choice.kinds:
            return self._unknown_value((*key, "name"), value["name"], choice.kinds)
        return self.read(choice.kinds[value["name"]], value, key)

    def _read_union(self, kinds: tuple[Any, ...], value: Any, key: tuple[str, ...]) -> Any:
        """By the first kind that takes the value; otherwise the last one's mistakes are told."""
        if value is None and types.NoneType in kinds:
            return None
        before = len(self.mistakes)
        for kind in (kind for kind in kinds if kind is not types.NoneType):
            del self.mistakes[before:]
            found = self.read(kind, value, key)
            if len(self.mistakes) == before:
                return found
        return None

    def _read_float(self, value: float, key: tuple[str, ...]) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if self.finite and not math.isfinite(number):
            self._wrong(key, "a finite number", value)
        return number

    def _unknown_value(self, key: tuple[str, ...], value: Any, known: Iterable[Any]) -> None:
        *others, last = map(repr, known)
        expected = f"{', '.join(others)} or {last}" if others else last
        close = nearest(value, [str(item) for item in known]) if isinstance(value, str) else ""
        self._note(key, f"unknown value {value!r}{close}. Expected {expected}.")

    def _wrong(self, key: tuple[str, ...], expected: str, value: Any, advice: str = "") -> None:
        self._note(key, f"expected {expected}, found {value!r}{advice}.")

    def _note(self, key: tuple[str, ...], what: str) -> None:
        self.mistakes.append(": ".join(filter(None, (".".join(key), what))))
