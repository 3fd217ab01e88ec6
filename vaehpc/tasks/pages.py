"""The page of each run of a study: read what it has left, write pages/RUN.html."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError
from vaehpc.reporting.explanation import Explained
from vaehpc.reporting.run_page import SAMPLE_IMAGES, RunMaterial, run_page
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.results import LatentStatistics, RunSummary, StudySummary, TrainedRecord
from vaehpc.stats.threads import num_threads
from vaehpc.study.files import RunDir, StudyDir, read_array, read_bytes, read_words, write_text
from vaehpc.study.provenance import provenance
from vaehpc.tasks.found import curve_of
from vaehpc.tasks.probe import NO_CURVE
from vaehpc.tasks.recorded import read_recorded
from vaehpc.tasks.statistics import load_attributes

logger = logging.getLogger(__name__)

Links = Mapping[str, str]
"""Pages by the names of the links to them."""
LENGTH_OF_HEAD = 400
"""Characters of a page in which its fingerprint stands."""
PAGES_PER_PROCESS = 4
"""Fewer take less time than the start of a process."""
DRAWN = ("radius_mu", "principal_variances", "mahalanobis_qq")
"""Arrays of statistics/ that a page draws, beside the t-SNE maps."""


def write_pages(
    study: StudyDir, config: StudyConfig, summary: StudySummary, replays: Mapping[str, Links] | None = None
) -> None:
    """Write the page of every run, also of one that is missing, unless it is there and nothing of it has changed.

    Many pages are drawn by as many processes as this task has processors. `replays` are the pages of the replays of
    runs by their names, relative to the study's directory.

    Raises:
        UserError: the folder may not be written, or the disk is full.
    """
    has_attributes = attributes_of(config) is not None
    study.pages.mkdir(exist_ok=True)
    wanted = []
    for run in config.runs():
        found, target = summary.runs[run.name], study.page(run.name)
        links = {name: f"../{page}" for name, page in (replays or {}).get(run.name, {}).items()}
        made_of = fingerprint(study.run(run.name), found, has_attributes, links)
        if made_of not in read_words(target)[:LENGTH_OF_HEAD]:
            wanted.append((study, run, found, has_attributes, links, made_of))
    num_processes = min(num_threads(), len(wanted) // PAGES_PER_PROCESS)
    if num_processes < 2:
        for page in wanted:
            write_page(*page)
        return
    # Spawned: in the process of a debug launch TensorFlow has threads, which a fork would not survive.
    with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(write_page, *zip(*wanted, strict=True)):
            pass


def write_page(
    study: StudyDir, config: RunConfig, found: RunSummary, has_attributes: bool, replays: Links, made_of: str
) -> None:
    """Read what a run has left, and draw it."""
    attributes = attributes_of(config) if has_attributes else None
    material = read_material(study.run(config.name), config, found, attributes, replays)
    write_text(study.page(config.name), run_page(material, made_of))


def fingerprint(run_dir: RunDir, found: RunSummary, has_attributes: bool, replays: Links) -> str:
    """Changes where a page would: with the code, with what is said of the run, with the files that it is made of."""
    single = (run_dir.trained_path, run_dir.statistics_path, run_dir.history_path, run_dir.probe, run_dir.steps)
    several = (*run_dir.trigger_dirs(), *run_dir.statistics_arrays.glob("*"), *run_dir.images.glob("*"))
    files = []
    for path in (*single, *sorted(several)):
        with contextlib.suppress(OSError):
            files.append(f"{path} {path.stat().st_mtime_ns}")
    links = [*replays, *replays.values()]
    said = [provenance().code_version, found.model_dump_json(), str(has_attributes), *links, *files]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def attributes_of(config: StudyConfig | RunConfig) -> Mapping[str, npt.NDArray[np.bool_]] | None:
    """Attributes (num_train,) of the training images by name; None where the data set has none, is gone or another."""
    try:
        return load_attributes(config)
    except UserError as error:
        logger.warning("maps of latent points are not coloured: %s", error)
        return None


# Reading


def read_material(
    run_dir: RunDir,
    config: RunConfig,
    summary: RunSummary,
    attributes: Mapping[str, npt.NDArray[np.bool_]] | None,
    replays: Links | None = None,
) -> RunMaterial:
    """What a run has left. Of one that is missing nothing is believed but its probe and its recorder."""
    is_missing = summary.run_class is None
    trained = None if is_missing else run_dir.trained()
    statistics = None if is_missing else run_dir.statistics()
    return RunMaterial(
        config=config,
        summary=summary,
        trained=trained,
        statistics=statistics,
        history=[] if is_missing else run_dir.history(),
        probe=curve_of(run_dir) or NO_CURVE,
        recorded=recorded(run_dir),
        arrays={} if statistics is None else read_arrays(run_dir, statistics),
        attributes=attributes,
        images={} if trained is None else read_images(run_dir, trained),
        replays=replays or {},
    )


def read_arrays(run_dir: RunDir, statistics: LatentStatistics) -> dict[str, npt.NDArray[Any]]:
    """The arrays of statistics/ that a page draws; one that cannot be read is left out."""
    found = {}
    folder = run_dir.statistics_arrays
    for path in (*folder.glob("tsne_*.npy"), *(folder / f"{name}.npy" for name in DRAWN)):
        try:
            found[path.stem] = read_array(path, statistics.arrays_sha256.get(path.name))
        except UserError as damage:
            logger.warning("%s is not drawn: %s", run_dir.name, damage)
    return found


def read_images(run_dir: RunDir, trained: TrainedRecord) -> dict[str, bytes]:
    """The sample images as files; one that cannot be read, or is not what was written, is left out."""
    found = {}
    for name in SAMPLE_IMAGES:
        path = run_dir.images / name
        try:
            found[name] = read_bytes(path, trained.latents_sha256.get(f"{run_dir.images.name}/{name}"))
        except FileNotFoundError:
            continue
        except OSError as error:
            logger.warning("%s is not shown: %s", path, error.strerror)
    return found


def recorded(run_dir: RunDir) -> Explained | None:
    """As read_recorded; None, too, where a record is damaged."""
    try:
        return read_recorded(run_dir)
    except (UserError, OSError) as damage:
        logger.warning("%s: %s", run_dir.name, damage)
        return None
