"""ro-crate-metadata.json: what the files of a study's directory are, for archives and programs.

Source: RO-Crate Metadata Specification 1.1, https://w3id.org/ro/crate/1.1.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vaehpc.reporting import findings, words
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.results import StudySummary
from vaehpc.study.files import StudyDir

TOP_FILES = {
    "study.json": ("settings, plan, seeds, data hash and code version of the study", "application/json"),
    "summary.json": ("every count, rate, class and test", "application/json"),
    "runs.parquet": ("one row per run", "application/vnd.apache.parquet"),
    "runs.csv": ("the same as text", "text/csv"),
    "columns.csv": ("what the columns of both mean", "text/csv"),
    "report.html": ("the report", "text/html"),
    "report.md": ("the report as plain text", "text/markdown"),
}
TOP_FOLDERS = {"figures": "figures (SVG), and what each shows (CSV)", "pages": "a page for each run (HTML)"}


def crate(study: StudyDir, config: StudyConfig, summary: StudySummary) -> str:
    """The metadata as JSON text; the study's directory is the data set, each run a data set within it."""
    files = [file(study.path / name, *said) for name, said in TOP_FILES.items() if _is_readable(study.path / name)]
    folders = [folder(name, said) for name, said in TOP_FOLDERS.items() if _is_readable(study.path / name)]
    runs = [run_folder(name, summary) for name in summary.runs if _is_readable(study.run(name).path)]
    software: dict[str, Any] = {
        "@id": "#vaehpc",
        "@type": "SoftwareApplication",
        "name": "vaehpc",
        "softwareVersion": summary.provenance.code_version,
        "softwareRequirements": ", ".join(f"{name} {of}" for name, of in summary.provenance.packages.items()),
    }
    images: dict[str, Any] = {
        "@id": f"#data-{summary.data.sha256}",
        "@type": "Dataset",
        "name": summary.data.name,
        "description": f"{words.data(summary.data)}; not part of this directory",
        "identifier": f"sha256:{summary.data.sha256}",
    }
    action: dict[str, Any] = {
        "@id": "#study",
        "@type": "CreateAction",
        "name": "training, statistics and report",
        "instrument": reference(software),
        "object": reference(images),
        "result": reference({"@id": "./"}),
    }
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{summary.study}: rates of divergence",
        "description": findings.overview(config, summary).replace(words.NBSP, " "),
        "datePublished": date_of(study),
        "license": "Not stated: whoever publishes this directory decides.",
        "hasPart": [reference(entity) for entity in (*files, *folders, *runs)],
        "mentions": reference(action),
    }
    descriptor: dict[str, Any] = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    graph = [descriptor, root, *files, *folders, *runs, software, images, action]
    context = "https://w3id.org/ro/crate/1.1/context"
    return json.dumps({"@context": context, "@graph": graph}, indent=2, ensure_ascii=False) + "\n"


def _is_readable(path: Path) -> bool:
    return os.access(path, os.R_OK)


def file(path: Path, said: str, encoding: str) -> dict[str, Any]:
    """A file of the study's directory."""
    return {
        "@id": path.name,
        "@type": "File",
        "name": path.name,
        "description": said,
        "encodingFormat": encoding,
        "contentSize": str(path.stat().st_size),
    }


def folder(name: str, said: str) -> dict[str, Any]:
    """A folder of the study's directory."""
    return {"@id": f"{name}/", "@type": "Dataset", "name": name, "description": said}


def run_folder(name: str, summary: StudySummary) -> dict[str, Any]:
    """The directory of one run."""
    run = summary.runs[name]
    return folder(name, f"run of arm {run.arm} with seed {run.seed}: {words.class_of(run)}")


def reference(entity: dict[str, Any]) -> dict[str, Any]:
    """By its id."""
    return {"@id": entity["@id"]}


def date_of(study: StudyDir) -> str:
    """The day on which the summary was written, UTC."""
    return datetime.fromtimestamp(study.summary_path.stat().st_mtime, UTC).date().isoformat()
