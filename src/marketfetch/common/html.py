"""Small pages of HTML for notebooks: escaped, and in the colours of the notebook, light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from marketfetch.redaction import printable

__all__ = ["html_list", "html_page", "html_table"]

# The class is written twice, so that these rules are more specific than those of JupyterLab. Colours are
# inherited and lines are a transparent grey, so that they suit light and dark themes.
_STYLE = (
    "<style>.marketfetch{overflow-x:auto;max-width:100%}"
    "div.marketfetch.marketfetch :is(p,ul){margin-top:.4em;margin-bottom:.4em}"
    "div.marketfetch.marketfetch table{border-collapse:collapse;color:inherit;background:none;"
    "margin:.4em 0;border:0;display:table;font-size:.9em}"
    "div.marketfetch.marketfetch :is(td,th){padding:.15em .6em;text-align:left;color:inherit;background:none;"
    "border:0;border-bottom:1px solid rgba(128,128,128,.35);white-space:nowrap;min-width:0}"
    "div.marketfetch.marketfetch td:last-child:not(.number){white-space:normal;min-width:10em}"
    "div.marketfetch.marketfetch .number:is(td,th){text-align:right;font-variant-numeric:tabular-nums}"
    "div.marketfetch progress{width:16em;vertical-align:middle}</style>"
)


def html_page(headline: str, *parts: str) -> str:
    """Return a headline, which is escaped, and parts that are HTML already.

    >>> html_page("1 < 2").endswith("<p>1 &lt; 2</p></div>")
    True
    """
    return f'<div class="marketfetch">{_STYLE}<p>{_text(headline)}</p>{"".join(parts)}</div>'


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of text, or "" without rows.

    A name in `header` that ends in a space marks a column of numbers, aligned to the right: ("symbol",
    "rows "). Control characters, which a server may have sent, are written as escapes.

    >>> html_table(("symbol",), [("<b>",)])
    '<table><thead><tr><th>symbol</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    numbers = [name.endswith(" ") for name in header]
    head = _row("th", header, numbers)
    body = "".join(_row("td", row, numbers) for row in rows)
    if not body:
        return ""
    return f"<table>{f'<thead>{head}</thead>' if header else ''}<tbody>{body}</tbody></table>"


def html_list(headline: str, items: Iterable[str]) -> str:
    """Return a list of texts below a headline, or "" without items.

    >>> html_list("Missing:", ["1 < 2"])
    '<p>Missing:</p><ul><li>1 &lt; 2</li></ul>'
    """
    lines = "".join(f"<li>{_text(item)}</li>" for item in items)
    return f"<p>{_text(headline)}</p><ul>{lines}</ul>" if lines else ""


def _row(tag: str, cells: Sequence[str], numbers: Sequence[bool]) -> str:
    kinds = [*numbers, *[False] * (len(cells) - len(numbers))]
    marks = (' class="number"' if number else "" for number in kinds)
    line = (f"<{tag}{mark}>{_text(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))
    return f"<tr>{''.join(line)}</tr>"


def _text(text: str) -> str:
    return escape(printable(text).strip())
