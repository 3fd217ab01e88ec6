"""Whether a sample has more than one mode: Hartigan's dip."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from vaehpc.schema.plan import ModesPlan
from vaehpc.schema.results import DipTest

Float64Array = npt.NDArray[np.float64]


def dip_tests(
    samples: Mapping[str, Float64Array], plan: ModesPlan, key: Callable[[int], np.random.SeedSequence]
) -> dict[str, DipTest]:
    """The dip of each sample, and how probable one as large is if the values are uniform; not of smaller ones.

    Of the distributions with one mode the uniform one has the largest dips, as far as is known: p is not too small.

    Args:
        samples: (num_values,) each, finite.
        plan: fewest values of a sample, number of uniform ones.
        key: of the uniform samples with so many values.
    """
    large = {name: values for name, values in samples.items() if len(values) >= plan.min_runs}
    uniform = {}
    for size in {len(values) for values in large.values()}:
        generator = np.random.default_rng(key(size))
        uniform[size] = np.array([dip(generator.random(size)) for _ in range(plan.num_simulations)])
    tests = {}
    for name, values in large.items():
        found = dip(values)
        larger = int((uniform[len(values)] >= found).sum())
        tests[name] = DipTest(num_runs=len(values), dip=found, p=(1 + larger) / (1 + plan.num_simulations))
    return tests


def dip(values: Float64Array) -> float:
    """Largest distance of the distribution function of a sample from the nearest one with a single mode.

    Hartigan and Hartigan (1985): the modal interval shrinks to where the greatest convex minorant and the least concave
    majorant of what lies in it are farthest apart, until that is less than the dip that was left outside of it. At
    least 1 / (2 n).

    Args:
        values: (num_values,), at least one.
    """
    points, counts = np.unique(values, return_counts=True)
    upto = np.cumsum(counts).astype(np.float64)
    below = upto - counts
    low, high, doubled = 0, len(points) - 1, 1.0
    while low < high:
        inside = slice(low, high + 1)
        convex = low + _hull(points[inside], below[inside])
        concave = low + _hull(points[inside], -upto[inside])
        minorant = np.interp(points[inside], points[convex], below[convex])
        majorant = np.interp(points[inside], points[concave], upto[concave])
        touching = np.union1d(convex, concave)
        distances = (majorant - minorant)[touching - low]
        widest = touching[np.argmax(distances)]
        if distances.max() <= doubled:
            break
        if widest in convex:
            new_low, new_high = widest, concave[np.searchsorted(concave, widest)]
        else:
            new_low, new_high = convex[np.searchsorted(convex, widest, side="right") - 1], widest
        # Without the ends of the modal interval: equal values there may be the mode.
        left, right = (upto[inside] - minorant)[: new_low - low], (majorant - below[inside])[new_high - low + 1 :]
        doubled = max(doubled, left.max(initial=0), right.max(initial=0))
        if (new_low, new_high) == (low, high):
            break
        low, high = int(new_low), int(new_high)
    return float(doubled / (2 * len(values)))


def _hull(x: Float64Array, y: Float64Array) -> npt.NDArray[np.int64]:
    """Positions of the corners of the greatest convex function below these points; x ascends."""
    corners: list[int] = []
    for i in range(len(x)):
        while len(corners) > 1:
            first, last = corners[-2:]
            if (y[last] - y[first]) * (x[i] - x[first]) < (y[i] - y[first]) * (x[last] - x[first]):
                break
            corners.pop()
        corners.append(i)
    return np.array(corners)
