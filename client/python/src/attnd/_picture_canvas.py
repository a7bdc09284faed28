"""A canvas that produces an SVG document, as src/bias/picture_canvas.cc does."""

from __future__ import annotations

from typing import List, NamedTuple

from attnd._drawing import escaped

INK, GREY, LINE = "#20242c", "#555d6b", "#8a919e"
MARGIN = 24.0
_SERIF = "'STIX Two Text','Latin Modern Roman',Cambria,Georgia,'DejaVu Serif',serif"
_SANS = "Inter,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
HATCHING = "url(#attnd-masked)"


class Label(NamedTuple):
    """Text with markup, and its greatest width, in ems."""

    markup: str
    ems: float


def plain(text: str) -> Label:
    # The width in the widest of the fonts that a viewer may use.
    return Label(escaped(text), 0.63 * len(text) + 0.37 * sum(map(text.count, "mMwW@%")))


def indexed(letter: str, index: int) -> Label:
    """An italic letter with a subscript. The subscript is lowered by dy, which every viewer supports; text after it in
    the same line must be raised again, as `product` does."""
    markup = f'<tspan font-style="italic">{letter}</tspan><tspan dy="0.28em" font-size="68%">{index}</tspan>'
    return Label(markup, 0.6 + 0.42 * len(str(index)))


def product(query: int, key: int) -> Label:
    """q5 . k2"""
    q, k = indexed("q", query), indexed("k", key)
    return Label(f'{q.markup}<tspan dy="-0.19em">\u00b7</tspan>{k.markup}', q.ems + 0.3 + k.ems)


def n(value: float) -> str:
    return f"{value:.6g}"


class Canvas:
    """A drawing that grows with its elements."""

    def __init__(self) -> None:
        self._body: List[str] = []
        self.right = self.bottom = 0.0

    def add(self, element: str) -> None:
        self._body.append(element + "\n")

    def reach(self, right: float, bottom: float) -> None:
        """Extends the document to cover this point."""
        self.right, self.bottom = max(self.right, right), max(self.bottom, bottom)

    def rect(self, x: float, y: float, width: float, height: float, attributes: str) -> None:
        self.add(f'<rect x="{n(x)}" y="{n(y)}" width="{n(width)}" height="{n(height)}" {attributes}/>')
        self.reach(x + width, y + height)

    def text(
        self, x: float, y: float, size: float, label: Label, fill: str = INK, anchor: str = "start", more: str = ""
    ) -> None:
        """Draws text. `y` is the baseline; `more` holds further attributes, each after a space."""
        part = {"start": 1.0, "middle": 0.5, "end": 0.0}[anchor]
        self.reach(x + part * label.ems * size, y + 0.3 * size)
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.add(f'<text x="{n(x)}" y="{n(y)}" font-size="{n(size)}" fill="{fill}"{place}{more}>{label.markup}</text>')

    def turned_text(self, x: float, y: float, size: float, label: Label, fill: str) -> None:
        """Draws text that reads upwards, with its middle at (x, y)."""
        self.reach(x, y + label.ems * size / 2)
        turned = f'text-anchor="middle" class="s" transform="rotate(-90 {n(x)} {n(y)})"'
        self.add(f'<text x="{n(x)}" y="{n(y)}" font-size="{n(size)}" fill="{fill}" {turned}>{label.markup}</text>')

    def finish(self, title: str, subtitle: str, description: str) -> str:
        """Returns the document, with the title at the top, where the drawing must have left room."""
        room = max(self.right - MARGIN, 480.0)
        heading, below = plain(title), plain(subtitle)
        heading = Label(heading.markup, 1.12 * heading.ems)  # in bold
        self.text(MARGIN, 40, max(10.0, min(20.0, room / heading.ems)), heading, more=' class="s" font-weight="600"')
        self.text(MARGIN, 62, max(10.0, min(13.5, room / below.ems)), below, GREY, more=' class="s"')
        width, height = f"{self.right + MARGIN:.0f}", f"{self.bottom + MARGIN:.0f}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" '
            f'font-family="{_SERIF}">\n'
            f"<title>{escaped(title)}</title>\n<desc>{escaped(description)}</desc>\n"
            f"<style>.s{{font-family:{_SANS}}}.m{{font-family:{_SERIF}}}</style>\n"
            '<defs><pattern id="attnd-masked" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><rect width="6" height="6" fill="#ffffff"/>'
            f'<path d="M3 0v6" stroke="#b4bac4" stroke-width="1.5"/></pattern></defs>\n'
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n{"".join(self._body)}</svg>\n'
        )
