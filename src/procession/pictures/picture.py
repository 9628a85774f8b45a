"""What the pictures share: how they show themselves, their colours and type, and text made fit to stand in them.

A picture is one SVG without script, without anything from elsewhere, light or dark as its reader prefers.
"""

from collections.abc import Mapping
from html import escape
from typing import Protocol

from procession._model.text import shown

SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

# name: (light, dark). Hues are those that people who see few colours can tell apart too.
PALETTE = {
    "paper": ("#ffffff", "#0d1117"),
    "panel": ("#f5f7f9", "#151b23"),
    "card": ("#ffffff", "#1f2630"),
    "line": ("#d4dae1", "#323a45"),
    "edge": ("#8a94a1", "#788391"),
    "ink": ("#1c2128", "#e8edf3"),
    "muted": ("#5d6772", "#98a3b0"),
    "blue": ("#2f6fb3", "#6cabf0"),
    "sky": ("#9cc3ea", "#3d6a99"),
    "red": ("#c8431b", "#ff8a5c"),
    "grey": ("#9aa3ad", "#697380"),
    "amber": ("#b77400", "#e9b44c"),
}

TIMES = "\N{MULTIPLICATION SIGN}"

Style = Mapping[str, Mapping[str, str]]
"""Selector → property → value; a value that is a name in `PALETTE` is that colour."""


class HasSvg(Protocol):
    """An object that can draw itself."""

    def svg(self) -> str:
        """Return it as SVG."""
        ...


class Picture:
    """Shows itself in a notebook. What it shows is its `svg()`."""

    __slots__ = ()

    def _repr_svg_(self: HasSvg) -> str:
        return self.svg()

    def _repr_html_(self: HasSvg) -> str:
        return self.svg()

    def _repr_mimebundle_(self: HasSvg, **_: object) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/html": self.svg(), "text/plain": str(self)}


def svg_of(kind: str, width: float, height: float, title: str, body: list[str], style: Style) -> str:
    """Return a whole picture; `kind` is the class its rules are for, so that they touch nothing else on a page."""
    size = f'width="{width:.0f}" height="{height:.0f}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" role="img" {size}',
            f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto">',
            f"<title>{text(title)}</title>",
            f"<style>{sheet(kind, style)}</style>",
            f'<rect class="paper" {size} rx="10"/>',
            *body,
            "</svg>",
        )
    )


def part_of(kind: str, box: tuple[float, float, float, float], title: str, body: list[str]) -> str:
    """Return a picture cut to a box (left, top, width, height), for a page that has the style sheet of its kind.

    None stand within it, for a page may forbid that.
    """
    left, top, width, height = (f"{number:.0f}" for number in box)
    size = f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}"'
    return "\n".join((f'<svg class="{kind}" role="group" aria-label="{text(title)}" {size}>', *body, "</svg>"))


def sheet(kind: str, style: Style) -> str:
    """Return the rules of a kind of picture as a style sheet, light or dark as the reader prefers."""
    return f"{_rules(kind, style, 0)}@media(prefers-color-scheme:dark){{{_rules(kind, style, 1)}}}"


def text(said: str) -> str:
    r"""Return text that came from a user as harmless XML.

    >>> text("<script>\x1b")
    '&lt;script&gt;\\x1b'
    """
    return escape(shown(said))


def _rules(kind: str, style: Style, mode: int) -> str:
    rules = (
        {"": {"font-family": SANS}, ".paper": {"fill": "paper"}, **style}
        if mode == 0
        else {
            ".paper": {"fill": "paper"},
            **{
                selector: coloured
                for selector, properties in style.items()
                if (coloured := {key: value for key, value in properties.items() if value in PALETTE})
            },
        }
    )
    return "".join(
        f".{kind}{f' {selector}' if selector else ''}"
        f"{{{';'.join(f'{key}:{PALETTE[value][mode] if value in PALETTE else value}' for key, value in rule.items())}}}"
        for selector, rule in rules.items()
    )
