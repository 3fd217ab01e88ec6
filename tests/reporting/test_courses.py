import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, fromstring

import numpy as np
import pytest

from vaehpc.reporting import courses
from vaehpc.reporting.courses import Course
from vaehpc.reporting.page import rendered

STEPS = np.arange(50, 1001, 50)


def course(name: str, radius: float = 16.0, run_class="regular", has_left: bool = False, **given) -> Course:
    return Course(name, run_class, STEPS, np.full(len(STEPS), radius), f"{run_class}", has_left, **given)


def links(drawing: str) -> list[str]:
    return re.findall(r'<a href="pages/([^"]*)[.]html"', drawing)


def test_runs_that_left_and_fifty_others_are_lines_that_lead_to_their_pages():
    regular = [course(f"ae-seed{seed:03d}", 16 + seed / 100) for seed in range(500)]
    left = [course(f"vae-seed{seed:03d}", 60.0, "diverged", has_left=True) for seed in range(70)]
    drawing = courses.figure([*regular, *left], {"ae": 32.0}, "pages")
    found = links(drawing)
    assert set(found[-70:]) == {each.name for each in left}  # on top
    assert len(found) == 120
    assert "450\N{NO-BREAK SPACE}runs without a line" in drawing
    assert "dashed: limit 32<" in drawing


def test_without_a_rest_there_is_no_band():
    drawing = courses.figure([course("ae-seed000"), course("ae-seed001")], {}, "pages")
    assert links(drawing) == ["ae-seed000", "ae-seed001"]
    assert "without a line" not in drawing
    assert "limit" not in drawing


def test_many_limits_have_one_name():
    two = courses.figure([course("ae-seed000")], {"ae": 32.0, "ae-clip": 20.0}, "pages")
    assert "dashed: limit of ae 32, of ae-clip 20<" in two
    three = courses.figure([course("ae-seed000")], {"ae": 32.0, "ae-clip": 20.0, "ae-he": 25.0}, "pages")
    assert three.count('stroke-dasharray="5 4"') == 3
    assert re.findall("<text[^>]*>dashed: (limit[^<]*)", three) == ["limits of 3 controls, 20 to 32"]


NARROW = int(re.findall(r"svg.courses text { font-size: (\d+)px", rendered("style.css.j2"))[0])
"""Size of the words on narrow screens, in the SVG's units."""


def texts(element: Element, anchor: str = "start") -> Iterator[tuple[str, float, float, str]]:
    """Anchor, place and words of all texts."""
    anchor = element.get("text-anchor", anchor)
    if element.tag.endswith("text"):
        yield anchor, float(element.attrib["x"]), float(element.attrib["y"]), element.text or ""
    for child in element:
        yield from texts(child, anchor)


def test_no_word_is_cut_on_a_narrow_screen_or_lies_on_a_curve():
    """A letter is at most 0.6 of its size wide."""
    steep = Course("steep", "regular", STEPS, np.geomspace(1, 900_000, len(STEPS)), "", False)
    drawing = courses.figure([steep], {"ae": 890_000.0, "ae-clip": 20.0}, "pages")
    found = list(texts(fromstring(drawing)))
    for anchor, x, _, said in found:
        width = 0.6 * NARROW * len(said)
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        assert left >= 0 and left + width <= courses.WIDTH, said
    above = {said for _, _, y, said in found if y < courses.TOP - 5}
    assert above == {"median radius R", "dashed: limit of ae 890,000, of ae-clip 20"}
    assert {"100,000", "1,000"} <= {said for *_, said in found}


def test_a_nan_is_a_cross_and_a_jump_a_triangle():
    lost = course("lost", run_class="nonfinite", has_left=True)
    assert "l8 8m-8 0l8 -8" in courses.figure([lost], {}, "pages")
    jumped = course("jumped", run_class="diverged", has_left=True, onset_step=400)
    scale = courses.extent_of([jumped], {})
    assert f"M{float(scale.x(400)):.1f} {float(scale.y(16.0)):.1f}l-4.5" in courses.figure([jumped], {}, "pages")


def test_radii_lie_on_a_logarithmic_axis_and_what_has_no_logarithm_is_left_out():
    radii = np.array([1.0, 10.0, 100.0, np.nan, np.inf, 0.0])
    found = Course("odd", "diverged", np.arange(1, 7), radii, "", True).finite()
    assert found.radii.tolist() == [1.0, 10.0, 100.0]
    low, middle, high = courses.extent_of([found], {}).y(found.radii)
    assert low - middle == pytest.approx(middle - high)


def test_a_line_keeps_its_peaks():
    values = np.zeros(10_000)
    values[7_001], values[2_003] = 9.0, -9.0
    places = courses.reduced(values, 100)
    assert {0, 2_003, 7_001, 9_999} <= set(places.tolist())
    assert len(places) <= 102


def test_words_are_text():
    drawing = courses.figure([course("<b>", has_page=False)], {"<i>": 32.0, "ae": 40.0}, "pages")
    assert "<b>" not in drawing
    assert "<i>" not in drawing
    assert not links(drawing)


@pytest.mark.parametrize(("low", "high"), [(9.9, 21.0), (0.4, 5_000.0), (15.0, 17.0), (1e-3, 1e9)])
def test_a_few_round_ticks(low, high):
    ticks = courses.log_ticks(low, high)
    assert 2 <= len(ticks) <= courses.MOST_TICKS
    assert all(low <= tick <= high for tick in ticks)


def test_steps_begin_where_the_axis_does():
    assert courses.step_ticks(0, 900) == [0, 200, 400, 600, 800]
    assert courses.step_ticks(12_030, 12_330) == [12_100, 12_200, 12_300]


def test_sparklines_are_of_those_that_left_first():
    regular = [course(f"ae-seed{seed:03d}") for seed in range(300)]
    left = [course(f"vae-seed{seed:03d}", 60.0, "diverged", has_left=True) for seed in range(3)]
    drawn = courses.sparklines([*regular, *left])
    assert len(drawn) == courses.MOST_SPARKS
    assert {each.name for each in left} <= set(drawn)
