"""How an option is declared: a dataclass field with the metadata that the command line needs.

This module is plain data. It imports neither click nor torch.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any


class OptionError(ValueError):
    """An option has a value that it cannot have, or options exclude each other.

    The message names fields. A command line that writes them in another way asks `text` for its own wording.

    Args:
        template: the message, with {} for each field's name and {name} for each value.
        fields: names of fields, in the order of the template.
        values: what the template names beside them.
    """

    def __init__(self, template: str, *fields: str, **values: Any) -> None:
        self.template, self.fields, self.values = template, fields, values
        super().__init__(self.text(str))

    def text(self, spell: Callable[[str], str]) -> str:
        """Return the message with each field's name as `spell` writes it."""
        return self.template.format(*map(spell, self.fields), **self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """The metadata of an option beside its name, its type and its default.

    Attributes:
        help: one sentence.
        metavar: how the help calls the value; None for the type's name.
        min: the smallest value.
        max: the largest value.
        min_open: whether `min` itself is excluded.
        choices: the values it can have, if they are few.
        group: the heading of the help under which it stands.
        off: the value that turns it off, where a checkpoint may recommend one: a record without the option has this one.
    """

    help: str
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    min_open: bool = False
    choices: tuple[str, ...] | None = None
    group: str = "Options"
    off: Any = None


def option(default: Any, **declared: Any) -> Any:
    """Return a dataclass field that is an option; see `Option` for what may be declared."""
    return dataclasses.field(default=default, metadata={"option": Option(**declared)})


def nested(kind: type, *, optional: bool = False) -> Any:
    """Return a dataclass field that holds options: the fields of another dataclass.

    Args:
        kind: the dataclass.
        optional: the field is None, not `kind()`, where none of its options is given.
    """
    metadata = {"nested": kind, "optional": optional}
    if optional:
        return dataclasses.field(default=None, metadata=metadata)
    return dataclasses.field(default_factory=kind, metadata=metadata)


def leaves(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass that are no dataclasses themselves, those of nested ones among them, by name."""
    found: dict[str, dataclasses.Field[Any]] = {}
    for field in dataclasses.fields(kind):
        found |= leaves(field.metadata["nested"]) if "nested" in field.metadata else {field.name: field}
    return found


def options(kind: type) -> dict[str, tuple[Option, type, Any]]:
    """Return (declaration, type, default) of each option of a dataclass, those of nested dataclasses among them, by name.

    The type is bool, int, float or str; str stands for everything that is parsed later.
    """
    found: dict[str, tuple[Option, type, Any]] = {}
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if "nested" in field.metadata:
            found |= options(field.metadata["nested"])
        elif "option" in field.metadata:
            found[field.name] = field.metadata["option"], _plain_type(types[field.name]), field.default
    return found


def _plain_type(annotation: Any) -> type:
    """Return the type without None; str for Any and for whatever is no number and no flag."""
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)] or [annotation]
    return kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float) else str
