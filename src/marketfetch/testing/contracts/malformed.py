"""Malformed response bodies."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["NOT_A_PAGE", "corrupt_one_value", "each_value_emptied", "malformed_bodies"]

NOT_A_PAGE = (
    b"",
    b" ",
    b"\xff\xfe\x00",
    b"null",
    b"true",
    b"0",
    b'"text"',
    b"NaN",
    b"{}",
    b"[null]",
    b"[[]]",
    b"[[[]]]",
    b"[{}]",
    b"[" * 1000 + b"]" * 1000,
    b'{"data":' + b"[" * 1000 + b"]" * 1000 + b"}",
    b"<html><head><title>502 Bad Gateway</title></head><body></body></html>",
    b'{"code":-1003,"msg":"Too many requests."}',
    b'{"error":{"message":"internal"}}',
)
"""Bodies that are neither a page with rows nor an empty page."""

_EMPTY: tuple[Any, ...] = (None, {}, "", 0)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "abc",
    "NaN",
    "1e400",
    "-1",
    "\u0661",
    -1,
    0,
    2**63,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    [],
    [[]],
    {},
    {"a": [1]},
)


def malformed_bodies() -> SearchStrategy[bytes]:
    """Draw any JSON, and bytes that are no JSON."""
    leaves = st.sampled_from(_VALUES) | st.text(max_size=5) | st.floats() | st.integers()
    names = st.sampled_from(["code", "data", "rows", "result", "time", "timestamp"]) | st.text(max_size=3)
    trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=13) | st.dictionaries(names, inner))
    return trees.map(lambda tree: json.dumps(tree).encode()) | st.binary(max_size=40)


def corrupt_one_value(content: Any, draw: Callable[[SearchStrategy[Any]], Any]) -> bytes:
    """Replace one random value of a parsed answer by an odd one, and return the JSON."""
    changed = copy.deepcopy(content)
    places = list(_places(changed))
    holder, key = draw(st.sampled_from(places))
    holder[key] = draw(st.sampled_from(_VALUES))
    return json.dumps(changed).encode()


def each_value_emptied(content: Any) -> Iterator[bytes]:
    """Yield the JSON of a parsed answer with one value emptied: each of its envelope and of its first row.

    What is drawn at random may miss the one field of which an adapter expects too much.

    >>> [body.decode() for body in each_value_emptied({"rows": [[1], [2]]})][:3]
    ['{"rows": null}', '{"rows": {}}', '{"rows": ""}']
    """
    changed = copy.deepcopy(content)
    for holder, key in _places(changed, of_each_list=1):
        value = holder[key]
        for empty in _EMPTY:
            holder[key] = empty
            yield json.dumps(changed).encode()
        holder[key] = value


def _places(tree: Any, of_each_list: int | None = None) -> list[tuple[Any, Any]]:
    """Return each value in a tree, or only the first few of each list, as the holder and the key or index."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, value in islice(items, of_each_list if isinstance(tree, list) else None):
        found.append((tree, key))
        found += _places(value, of_each_list)
    return found
