"""What the runs of a study were made with, and whose code, packages or device differ from the others'."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from vaehpc.schema.results import Made
from vaehpc.stats.runs import MeasuredRun

Facets = Mapping[str, tuple[tuple[str, str], ...]]
"""By what is compared, such as 'code' or 'keras': what identifies it, and its name; of a resumed run several."""

MEASURED = "measured "


def facets(starts: Iterable[Made]) -> Facets:
    """Of one run. What is not known of a start is left out."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for made in starts:
        of, before = made.provenance, MEASURED if made.stage == "statistics" else ""
        # The hash of the sources is there without git, and stays through commits that change no code.
        name = of.code_version
        if of.sources is not None and "+g" not in name:
            name += f" (sources {of.sources[:8]})"
        found[f"{before}code"].setdefault(of.sources or of.code_version, f"{before}by {name}")
        if made.stage == "train":
            image = of.image_digest or "no image"
            found["image"].setdefault(image, f"in {image}")
            for package, version in of.packages.items():
                found[package].setdefault(version, f"with {package} {version}")
            if made.device is not None:
                found["device"].setdefault(made.device, f"on {made.device}")
            if made.driver is not None:
                found["driver"].setdefault(made.driver, f"with driver {made.driver}")
            if made.tensor_float_32 is not None:
                name = f"with{'' if made.tensor_float_32 else 'out'} TF32"
                found["TF32"].setdefault(str(made.tensor_float_32), name)
    return {name: tuple(sorted(values.items())) for name, values in found.items()}


def usual(runs: Iterable[Facets]) -> Facets:
    """What most runs have; of as many, the first."""
    counts: dict[str, Counter[tuple[tuple[str, str], ...]]] = defaultdict(Counter)
    names: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
    for run in runs:
        for name, values in run.items():
            # The same code may be called otherwise after a commit that changes none.
            counts[name][names.setdefault((name, *(key for key, _ in values)), values)] += 1
    return {name: count.most_common(1)[0][0] for name, count in counts.items()}


def otherwise(run: Facets, others: Facets) -> tuple[str, ...]:
    """In words, where a run differs from what is usual: 'by 0.2.1', 'with keras 3.15.1'."""
    differing = [
        values
        for name, values in run.items()
        if name in others and [key for key, _ in values] != [key for key, _ in others[name]]
    ]
    words = [" and ".join(name for _, name in values) for values in differing]
    return tuple(said for said in words if not (said.startswith(MEASURED) and said.removeprefix(MEASURED) in words))


def mixed(runs: Sequence[MeasuredRun]) -> list[str]:
    """'seeds 8-15 of vae-tiny by 0.2.1, of 16' for the runs of each arm that were not made as most of the study's."""
    made = {run.config.name: _not_as_asked(run) for run in runs}
    of_most = usual(made.values())
    arms: dict[str, list[MeasuredRun]] = defaultdict(list)
    for run in runs:
        arms[run.config.arm.name].append(run)
    found = []
    for arm, of_arm in arms.items():
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for run in of_arm:
            if words := otherwise(made[run.config.name], of_most):
                groups[words].append(run.config.seed)
        for words, seeds in groups.items():
            found.append(f"{spans(seeds)} of {arm} {', '.join(words)}, of {len(of_arm)}")
    return found


def _not_as_asked(run: MeasuredRun) -> Facets:
    """What a run was made with, but for TF32 where that is its arm's precision."""
    is_asked = run.config.arm.train.precision == "tf32"
    return {name: values for name, values in facets(run.starts).items() if not (is_asked and name == "TF32")}


def spans(seeds: Sequence[int]) -> str:
    """'seed 3', 'seeds 0, 8-15'; they ascend."""
    starts = [seeds[0], *(later for seed, later in pairwise(seeds) if later != seed + 1)]
    ends = [*(seed for seed, later in pairwise(seeds) if later != seed + 1), seeds[-1]]
    parts = [f"{first}" if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True)]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(parts)}"
