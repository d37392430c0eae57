"""Print the reference for authors of adapters in Markdown, from signatures and docstrings.

`docs/adapters.md` ends with it: python tools/adapter_reference.py
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import attrs

import marketfetch.adapter as mf

__all__ = ["reference"]

VALUES = (
    *(mf.Slice, mf.Series, mf.Span, mf.Request, mf.LimitPool, mf.Burst, mf.Cost, mf.Response),
    *(mf.ObjectLayout, mf.RowLayout, mf.Decoded, mf.Columns, mf.Instrument),
    *(mf.TimeWindowPaginator, mf.CursorPaginator, mf.RateLimitExceeded, mf.Banned),
)
FUNCTIONS = (mf.parse_json, mf.decode_errors_as, mf.excerpt, mf.raw_text, mf.retry_after, mf.to_local_time)
BASES = (mf.Endpoint, mf.Exchange)
ENGINE = frozenset(
    {
        *("split", "outcome", "sequential"),
        *(
            "endpoint",
            "where_files_are",
            "has_archive",
            "archive",
            "with_base_url",
            "decoded",
            "check_interval",
        ),
    }
)
"""Members that an author neither writes nor calls."""


def reference() -> str:
    """Return a section for each base class, each value and each function."""
    sections = [*map(_base, BASES), *map(_value, VALUES), *map(_function, FUNCTIONS)]
    return "\n".join(sections)


def _base(kind: type[Any]) -> str:
    rows = [
        f"| `{name}{_short(member)}` | {_first_sentence(member)} |"
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_") and name not in ENGINE
    ]
    told = (each for level in reversed(kind.__mro__[:-1]) for each in _attributes(level))
    rows[:0] = [f"| `{name}` | {text} |" for name, text in told]
    table = "\n".join(["| member | what it is |", "|---|---|", *rows])
    return f"### {kind.__name__}\n\n{_prose(kind)}\n\n{table}\n"


def _value(kind: type[Any]) -> str:
    told = "".join(f"- `{name}`: {text}\n" for name, text in _attributes(kind))
    methods = "".join(
        f"- `{name}{_short(member)}`: {_first_sentence(member)}\n"
        for name, member in vars(kind).items()
        if not name.startswith("_") and name not in ENGINE and _is_method(member)
    )
    lists = f"\n{told}{methods}" if told or methods else ""
    return f"### {kind.__name__}\n\n{_signature(kind, kind.__name__)}\n\n{_prose(kind)}\n{lists}"


def _function(function: Any) -> str:
    return f"### {function.__name__}\n\n{_signature(function, function.__name__)}\n\n{_prose(function)}\n"


def _is_method(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, classmethod | property)


def _signature(callable_: Any, name: str) -> str:
    """Return a call with one argument in each line."""
    lines, named = [f"{name}("], False
    for each in inspect.signature(callable_).parameters.values():
        if each.kind is each.KEYWORD_ONLY and not named:
            lines.append("    *,")
            named = True
        default = "" if each.default is each.empty else f" = {_default(callable_, each)}"
        lines.append(f"    {each.name}: {_type(each.annotation)}{default},")
    return "\n".join(["```text", *lines, ")", "```"])


def _default(callable_: Any, parameter: inspect.Parameter) -> str:
    """Return the default value of a parameter, also that which a factory makes."""
    if parameter.default is not attrs.NOTHING:
        return repr(parameter.default)
    factory: Any = getattr(attrs.fields_dict(callable_)[parameter.name].default, "factory", None)
    return repr(factory()) if factory in {dict, mf.SpanSet} else "…"


def _type(annotation: object) -> str:
    return str(annotation).strip("'").replace('Literal["GET", "POST"]', '"GET" | "POST"')


def _short(member: Any) -> str:
    """Return the parameters of a method without their types."""
    if isinstance(member, property):
        return ""
    function = member.__func__ if isinstance(member, classmethod) else member
    return f"({', '.join([*inspect.signature(function).parameters][1:])})"


def _first_sentence(member: Any) -> str:
    text = inspect.getdoc(member.fget if isinstance(member, property) else member) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def _prose(thing: Any) -> str:
    """Return a docstring without its examples, which are run where they are written."""
    kept = []
    for paragraph in (inspect.getdoc(thing) or "").split("\n\n"):
        if paragraph.startswith(("Example", "|")):
            break
        if not paragraph.startswith(">>>"):
            kept.append(paragraph if paragraph.startswith(("- ", "1. ")) else " ".join(paragraph.split()))
    return "\n\n".join(kept)


def _attributes(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield each attribute that has a docstring of its own, with its text."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for this, after in zip(tree.body, tree.body[1:], strict=False):
        match this, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                if not name.startswith("_"):
                    yield name, " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference())
