"""Looks into the images of a site, on the machine that launches: are they there, and do they have what stages need?"""

from __future__ import annotations

from vaehpc.checks.finding import Finding, right, unchecked, wrong
from vaehpc.slurm.containers import image_of
from vaehpc.slurm.images import STAGES, ImageError, can_look, examined
from vaehpc.study.sites import Site


def image_findings(site: Site) -> list[Finding]:
    """The images of a site, judged; nothing where it has none."""
    if site.container.runtime == "none":
        return []
    findings = []
    for stage in STAGES:
        name = f"image of {stage}"
        if not can_look(site):
            findings.append(unchecked(name, image_of(site.container, stage), "only a node can open it: --probe"))
            continue
        try:
            report = examined(site, stage)
        except ImageError as error:
            findings.append(wrong(name, error.found, error.remedy))
        else:
            image = "not of containers/Dockerfile" if report.image is None else report.image.digest
            versions = f"vaehpc {report.packages['vaehpc']}, Python {report.python}"
            findings.append(right(name, f"{image_of(site.container, stage)}: {versions}, {image}"))
    return findings
