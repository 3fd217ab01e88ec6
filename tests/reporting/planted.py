"""Studies planted run by run, with the courses of their probes, and what the suite then says of them."""

import hashlib
import html
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib.figure
import numpy as np
import pytest

from tests import plant
from tests.examples import PROVENANCE, Course, data_config, followed, study_config
from vaehpc import __version__
from vaehpc.reporting import figures
from vaehpc.schema.config import RunConfig, Stream, StudyConfig, TrainConfig
from vaehpc.schema.plan import PlanConfig, text_sha256
from vaehpc.study.files import RunDir
from vaehpc.study.presets import Settings, configured_arms, named_arms, plan_text
from vaehpc.study.sweep import asked_sweep
from vaehpc.tasks import aggregate

EVERY = 50
"""Steps from probe to probe; the burn-in of the plan's 300 steps is longer than an epoch of 100."""
NAN_RADIUS = 1.2345
"""Of the last good state of runs that became NaN: no other run comes near it, so it may stand nowhere."""
CURRENT = PROVENANCE.model_copy(update={"code_version": f"{__version__}+abc1234"})


@dataclass(frozen=True)
class Run:
    """A run: R of its probe at first and from later steps on, and what else became of it."""

    level: float = 16.0
    then: Mapping[int, float] = field(default_factory=dict)
    """R from these steps on, such as {400: 66.0}."""
    end: float | None = None
    """R over all images at the end; None: that of the last probe."""
    nan: int | None = None
    """The step at which it became NaN; nothing is probed from there on."""
    missing: Literal["train", "statistics"] | None = None
    stopped: int = 600
    """The step after which a run that lacks its training was seen no more."""
    cut: int | None = None
    """The last step in a probe file that is cut; the rest of the run is sound."""
    gap: tuple[int, int] | None = None
    """First and last of the steps whose probes are lost."""
    seed: int | None = None
    """None: its position in the arm."""
    weights: str | None = None
    """Runs of one seed with the same word here end in the same state, to the bit."""

    def course(self, num_steps: int) -> Course:
        """R of each probe that is on disk."""
        radii, radius = {}, self.level
        for step in range(EVERY, num_steps + 1, EVERY):
            radius = self.then.get(step, radius)
            radii[step] = radius
        first, last = self.gap or (num_steps + 1, num_steps + 1)
        known = min(self.cut or num_steps, self.nan or num_steps, self.stopped if self.missing else num_steps)
        return {step: found for step, found in radii.items() if step <= known and not first <= step <= last}

    def radius(self, num_steps: int) -> float:
        """R at the end."""
        if self.nan is not None:
            return NAN_RADIUS
        if self.end is not None:
            return self.end
        radii = {step: radius for step, radius in self.then.items() if step <= num_steps}
        return radii[max(radii)] if radii else self.level


Arms = Mapping[str, Sequence[Run]]


def regular(count: int, around: float = 16.0) -> list[Run]:
    """Sound runs that differ by 5 % at most."""
    return [Run(around * (0.975 + 0.00625 * (5 * position % 9))) for position in range(count)]


def seeds_of(runs: Sequence[Run]) -> tuple[int, ...]:
    return tuple(position if run.seed is None else run.seed for position, run in enumerate(runs))


def quick_text() -> str:
    """The plan's text with few simulations and permutations: what they are for is tested elsewhere."""
    text = plan_text()
    for slow, quick in (("num_simulations = 1999", "num_simulations = 99"), ("= 9999", "= 99")):
        text = text.replace(slow, quick)
    return text


def config_of(arms: Arms, epochs: int, num_train: int, sweep: str, cross: Mapping[Stream, int] | None) -> StudyConfig:
    """Arms known by name, or of a sweep, of `epochs` of 100 steps where num_train is 12,800."""
    bases, _, asked = sweep.rpartition(" ")
    named = asked_sweep(asked, "--sweep").arms(named_arms(bases.split())) if sweep else named_arms(tuple(arms))
    configured = configured_arms(named, Settings(train=TrainConfig(epochs=epochs)))
    text, seeds = quick_text(), {arm: seeds_of(runs) for arm, runs in arms.items()}
    return study_config(
        tuple(configured.values()),
        plan=PlanConfig.model_validate(tomllib.loads(text)),
        data=data_config(num_train=num_train, image_size=48),
        seeds=dict.fromkeys(arms, 1),
        provenance=CURRENT,
    ).model_copy(
        update={
            "plan_text": text,
            "plan_sha256": text_sha256(text),
            "seeds": seeds,
            "first_seeds": seeds,
            "cross": cross or {},
        }
    )


def leave(folder: RunDir, config: RunConfig, run: Run, latents: bool) -> None:
    """What this run leaves on disk."""
    course = run.course(config.num_steps)
    if run.missing == "train":
        plant.probe(folder.probe, course)
        plant.start(folder, outcome="failed", log="MemoryError: <could not allocate 3 GB>\n")
        return
    state = hashlib.sha256(f"{run.weights or config.name} {config.seed}".encode()).hexdigest()
    history = [record for record in followed(config, course) if run.nan is None or record.step < run.nan]
    given: dict[str, Any] = {
        "radius": run.radius(config.num_steps),
        "mu": (
            mu := plant.sphere(run.radius(config.num_steps), config.data.num_train, config.arm.model.z_dim)
            if latents
            else None
        ),
        "course": course,
        "history": history,
        "state_sha256": state,
        "nonfinite_step": run.nan,
        "provenance": CURRENT,
        "epochs": len(history),
        "step": history[-1].step if history else 0,
    }
    leave_by = plant.ended if run.missing is None else plant.trained
    leave_by(folder, **given)
    if mu is not None and run.missing is None:
        folder.statistics_arrays.mkdir()
        np.save(folder.statistics_arrays / "radius_mu.npy", np.linalg.norm(mu, axis=1))
    if run.missing == "statistics":
        plant.start(folder, stage="statistics", outcome="failed", log="MemoryError: <could not allocate 3 GB>\n")


@dataclass(frozen=True)
class Said:
    """What the suite says of a planted study. Texts have plain spaces and no marks of emphasis."""

    report: str
    """report.md."""
    page: str
    """report.html without its tags."""
    pages: Mapping[str, str]
    """Pages of runs by name, likewise; none where they were not drawn."""
    summary: Mapping[str, Any]
    """summary.json."""

    @property
    def abstract(self) -> str:
        """The report up to its first section."""
        return self.report.partition("\n## ")[0]

    def of_arm(self, arm: str) -> str:
        """The abstract's item on an arm; empty where there is none."""
        return "\n".join(re.findall(rf"^[-*] {re.escape(arm)}:.*$", self.abstract, re.M))

    def classes(self, arm: str) -> Counter[str | None]:
        """Runs of an arm by class; None: missing."""
        return Counter(run["class"] for run in self.summary["runs"].values() if run["arm"] == arm)

    @property
    def numbers(self) -> list[float]:
        """Every number of the summary, wherever it stands."""
        return numbers_in(self.summary)


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [
            number for part in (value.values() if isinstance(value, dict) else value) for number in numbers_in(part)
        ]
    return [value] if isinstance(value, float) else []


def plain(text: str) -> str:
    """With plain spaces, and without Markdown's emphasis and code marks."""
    return re.sub(r"[ \t\u00a0\u202f]+", " ", text).replace("**", "").replace("`", "")


def without_tags(page: str) -> str:
    page = re.sub(r"(?s)<(script|style|svg)\b.*?</\1>", " ", page)
    return plain(html.unescape(re.sub(r"<[^>]*>", " ", page)))


def planted(
    folder: Path,
    arms: Arms,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int = 6,
    num_train: int = 12_800,
    latents: bool = False,
    draws: bool = False,
    sweep: str = "",
    cross: Mapping[Stream, int] | None = None,
) -> Said:
    """Lay a study down, sum it up by the real task, and read what it says.

    With `latents` runs leave a few, by which the VAEs and AEs of a seed are compared. Without `draws` figures are empty
    and runs get no pages, which take nearly all of the time. A `sweep` is arms and what multiplies them, as
    'ae vae-tiny train.learning_rate=1e-3,2e-3'. Runs of a study that crosses streams have their levels in their seeds.
    """
    config = config_of(arms, epochs, num_train, sweep, cross)
    study = plant.study(folder / config.name, config)
    runs = {
        (arm, seed): run for arm, of_arm in arms.items() for seed, run in zip(seeds_of(of_arm), of_arm, strict=True)
    }
    for of_run in config.runs():
        leave(study.run(of_run.name), of_run, runs[of_run.arm.name, of_run.seed], latents)
    if not draws:
        without_drawings(monkeypatch)
    aggregate.run(str(study.path))
    return Said(
        report=plain(study.report_text.read_text(encoding="utf-8")),
        page=without_tags(study.report.read_text(encoding="utf-8")),
        pages={path.stem: without_tags(path.read_text(encoding="utf-8")) for path in study.pages.glob("*.html")},
        summary=json.loads(study.summary_path.read_text(encoding="utf-8")),
    )


def without_drawings(patch: pytest.MonkeyPatch) -> None:
    """Figures of a report are empty, and runs get no pages."""
    patch.setattr(matplotlib.figure.Figure, "savefig", empty_figure)
    patch.setattr(figures, "_lay_out", lambda _: None)
    patch.setattr(aggregate, "write_pages", lambda *_, **__: None)


def empty_figure(_: matplotlib.figure.Figure, to: Any, **__: Any) -> None:
    """In place of Figure.savefig."""
    text = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>\n'
    if isinstance(to, str | Path):
        Path(to).write_text(text)
        return
    write: Callable[[Any], Any] = to.write
    write(text if "b" not in getattr(to, "mode", "") and hasattr(to, "encoding") else text.encode())
