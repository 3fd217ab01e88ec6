"""Colours and line styles that figures and pages share."""

from __future__ import annotations

from typing import Literal

from vaehpc.schema.results import RunClass

INK = "#1f2328"
QUIET = "#656d76"
RULE = "#d8dde3"
PAPER = "#ffffff"

# Okabe and Ito's palette, which the colour-blind can tell apart; line styles serve print without colour.
CLASS_COLOURS: dict[RunClass, str] = {
    "regular": "#0072b2",
    "shifted": "#e69f00",
    "diverged": "#d55e00",
    "displaced": "#009e73",
    "collapsed": "#cc79a7",
    "nonfinite": "#3d444d",
    "unclassified": "#7d8590",
}
CLASS_LINES: dict[RunClass, Literal["solid", "dashed", "dashdot", "dotted"]] = {
    "regular": "solid",
    "shifted": "dashed",
    "diverged": "solid",
    "displaced": "dashdot",
    "collapsed": "dashdot",
    "nonfinite": "dotted",
    "unclassified": "solid",
}
