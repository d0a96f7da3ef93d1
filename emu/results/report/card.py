"""The boxes a page is made of: a chart with its heading, a table, a line in place of what did not happen."""

from collections.abc import Mapping, Sequence
from html import escape

from emu.results.report.figure import Figure


def section(heading: str, *parts: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def charts(*cards: str) -> str:
    return f'<div class="charts">{"".join(cards)}</div>'


def chart(title: str, note: str, figure: Figure) -> str:
    return f'<figure class="card">{_heading(title, note)}{figure.svg(title)}{figure.legend()}</figure>'


def empty(title: str, reason: str) -> str:
    """A box that says why there is nothing to draw."""
    return f'<figure class="card">{_heading(title, "")}<p class="empty">{escape(reason)}</p></figure>'


def box(title: str, note: str, content: str, wide: bool = False) -> str:
    """A box around `content`, which is HTML; a `wide` one stands below the charts of its section."""
    return f'<div class="card{" wide" if wide else ""}">{_heading(title, note)}{content}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    """A table whose cells are HTML; those of `text_columns` are aligned to the left, the others are numbers."""

    def row(cells: Sequence[str], first_tag: str, tag: str) -> str:
        marked = (
            (first_tag if column == 0 else tag, ' class="text"' if column in text_columns else "", cell)
            for column, cell in enumerate(cells)
        )
        return "<tr>" + "".join(f"<{name}{align}>{cell}</{name}>" for name, align, cell in marked) + "</tr>"

    body = "".join(row(cells, "th", "td") for cells in rows)
    return f'<div class="scroll"><table><thead>{row(header, "th", "th")}</thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, str], overrides: Sequence[str] = ()) -> str:
    """A list of names and values, and at its end the overrides of the command line."""
    items = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items()]
    if overrides:
        lines = "<br>".join(f"<code>{escape(override)}</code>" for override in overrides)
        items.append(f"<dt>overrides</dt><dd>{lines}</dd>")
    return f"<dl>{''.join(items)}</dl>"


def _heading(title: str, note: str) -> str:
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return heading + (f'<p class="note">{escape(note)}</p>' if note else "")
