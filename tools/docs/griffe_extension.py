"""What the reference of the Python API needs beside the source: other import paths, arguments, examples."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import attrs
import griffe

__all__ = ["PUBLIC_MODULES", "PublicApi", "import_paths", "with_fenced_examples"]

PUBLIC_MODULES = (
    "marketfetch",
    *(
        f"marketfetch.{name}"
        for name in (
            *("adapter", "dask", "errors", "events", "listeners", "plans"),
            *("protocols", "reports", "sinks", "testing"),
        )
    ),
    *(f"marketfetch.testing.contracts.{name}" for name in ("board", "exchange", "sink")),
)
"""The modules from which users import."""

_PLAIN = (bool, int, float, str, type(None))
_EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*|\n(?P=indent) +\S.*)*", re.MULTILINE)


@cache
def import_paths() -> Mapping[str, tuple[str, ...]]:
    """Return the paths from which each public object can be imported, by the path where it is defined."""
    found = defaultdict[str, list[str]](list)
    for path in PUBLIC_MODULES:
        module = importlib.import_module(path)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                continue
            named = inspect.isclass(value) or inspect.isfunction(value)
            found[f"{value.__module__}.{value.__qualname__}" if named else f"{path}.{name}"].append(
                f"{path}.{name}"
            )
    return {home: tuple(paths) for home, paths in found.items()}


def with_fenced_examples(text: str) -> str:
    r"""Return a docstring with its examples in fences, so that Markdown takes `>>>` for no quotation.

    >>> print(with_fenced_examples("Add.\n\n>>> 1 + 1\n2\n\nThat is all."))
    Add.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    That is all.
    """
    return _EXAMPLE.sub(lambda found: f"{found['indent']}```pycon\n{found[0]}\n{found['indent']}```", text)


class PublicApi(griffe.Extension):
    """Fences examples, says where else a name can be imported from, and writes the arguments of attrs."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was read from the source."""
        if obj.docstring is None:
            return
        obj.docstring.value = with_fenced_examples(obj.docstring.value)
        others = import_paths().get(obj.path, ())[1:]
        if others:
            also = ", ".join(f"`{path}`" for path in others)
            obj.docstring.value += f"\n\nThe same as {also}."

    def on_function_instance(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Write out the private aliases in the types of arguments and of the result."""
        for parameter in func.parameters:
            parameter.annotation = _without_aliases(parameter.annotation, func.module)
        func.returns = _without_aliases(func.returns, func.module)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Write out the private aliases in the type of an attribute or a property."""
        attr.annotation = _without_aliases(attr.annotation, attr.module)

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Give a class of attrs the arguments with which it is made."""
        kind: Any = getattr(sys.modules.get(cls.module.path), cls.name, None)
        if not attrs.has(kind) or "__init__" in cls.members:
            return
        arguments = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        arguments += [_parameter(cls, field) for field in attrs.fields(kind) if field.init]
        made = griffe.Function("__init__", parameters=griffe.Parameters(*arguments))
        cls.set_member("__init__", made)


def _parameter(cls: griffe.Class, field: attrs.Attribute[Any]) -> griffe.Parameter:
    """Return the argument for a field; its type is written in the class itself, or is that of a base."""
    keyword = griffe.ParameterKind.keyword_only
    place = keyword if field.kw_only else griffe.ParameterKind.positional_or_keyword
    declared = cls.members.get(field.name)
    written_type = declared.annotation if isinstance(declared, griffe.Attribute) else None
    annotation = _without_aliases(written_type, cls.module)
    default: object = field.default
    written = None if default is attrs.NOTHING else "..."
    if isinstance(default, _PLAIN) or (isinstance(default, tuple) and not default):
        written = repr(default)
    return griffe.Parameter(field.alias or field.name, annotation=annotation, kind=place, default=written)


def _without_aliases(value: Any, module: griffe.Module) -> Any:
    """Return an annotation in which the aliases of a module that nobody can import are written out."""
    if isinstance(value, list):
        return [_without_aliases(each, module) for each in value]
    if isinstance(value, griffe.ExprName):
        alias = module.members.get(value.name)
        if not isinstance(alias, griffe.Attribute) or f"{module.path}.{value.name}" in import_paths():
            return value
        if isinstance(alias.value, griffe.ExprCall):
            return _of_variable(alias.value, value)
        return alias.value if isinstance(alias.value, griffe.Expr) else value
    if isinstance(value, griffe.Expr):
        for field in fields(value):
            part = getattr(value, field.name)
            if isinstance(part, griffe.Expr | list):
                setattr(value, field.name, _without_aliases(part, module))
    return value


def _of_variable(made: griffe.ExprCall, name: griffe.ExprName) -> str | griffe.Expr:
    """Return the bound of a type variable, or else its name without the mark of a private one."""
    bounds = [
        each.value for each in made.arguments if isinstance(each, griffe.ExprKeyword) and each.name == "bound"
    ]
    return bounds[0] if bounds else name.name.lstrip("_")
