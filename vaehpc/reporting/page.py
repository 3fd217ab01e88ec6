"""What every page of a report is made of: figures and images inside the page, in its own colours."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from vaehpc.command import neutral
from vaehpc.reporting import palette

PAGE_COLOURS = {
    palette.INK: "--ink",
    palette.QUIET: "--quiet",
    palette.RULE: "--rule",
    palette.PAPER: "--paper",
    **{colour: f"--{run_class}" for run_class, colour in palette.CLASS_COLOURS.items()},
}
"""Colours of the figures that the page sets itself, so that they follow its dark mode."""


TAG = re.compile(r"<(?=[A-Za-z/!?])")


@dataclass(frozen=True)
class Drawing:
    """A figure as an SVG document, and what it shows in words."""

    svg: str
    alt: str
    data: str | None = None
    """What is drawn, as CSV."""


def rendered(template: str, **values: object) -> str:
    """A template of this folder with these values; text is escaped in HTML alone."""
    environment = Environment(
        loader=PackageLoader("vaehpc", "reporting"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        finalize=_neutral if template.endswith(".html.j2") else _neutral_in_markdown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(class_colours=palette.CLASS_COLOURS, **values)


def _neutral(value: object) -> object:
    """Text of records without what a terminal would obey."""
    return neutral(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _neutral_in_markdown(value: object) -> object:
    """The same, and without what would begin a tag of HTML: Markdown hands it on."""
    return TAG.sub("&lt;", neutral(value)) if isinstance(value, str) else value


def inline(drawing: Drawing, name: str) -> Markup:
    """A figure as an element of the page, with ids of its own and the page's colours."""
    element = drawing.svg[drawing.svg.index("<svg") :]
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", element)
    return Markup(coloured(element).replace("<svg", f'<svg role="img" aria-label="{escape(drawing.alt)}"', 1))


def coloured(element: str) -> str:
    """A figure with the page's colours."""
    for colour, variable in PAGE_COLOURS.items():
        element = element.replace(colour, f"var({variable})")
    return element


def data_uri(content: bytes, kind: str) -> str:
    """A file inside a page, such as kind 'image/png'."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
