"""Studies as older releases left them, one archive each, made by make.py."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaehpc.machine.hardware import cpu_model
from vaehpc.study.files import StudyDir
from vaehpc.study.provenance import provenance

ARCHIVES = {path.name.removesuffix(".tar.xz"): path for path in sorted(Path(__file__).parent.glob("*.tar.xz"))}
"""By release."""


def unpacked(release: str, folder: Path, here: bool = False) -> StudyDir:
    """The study of a release, as runs/old beside its faces.

    Args:
        release: '0.1.0'.
        folder: to unpack into.
        here: whether processor and packages are said to have been this machine's, so that only the code differs.
    """
    (folder / "runs").mkdir()
    with tarfile.open(ARCHIVES[release]) as archive:
        # Python 3.11.3 and older know no filter; later ones warn without.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (folder / "old").rename(folder / "runs" / "old")
    study = StudyDir(folder / "runs" / "old")
    for path in study.path.rglob("*"):
        if path.suffix in (".json", ".jsonl", "") and path.is_file():
            text = path.read_text().replace("FACES", str(folder / "faces")).replace("STUDY", str(study.path))
            path.write_text(text)
    if here:
        made = {"packages": provenance().packages}
        edit(study.config_path, lambda value: value["provenance"].update(made))
        for path in study.path.glob("*-seed*/trained.json"):
            edit(path, lambda value: (value.update(device=cpu_model()), value["provenance"].update(made)))
        for path in study.path.glob("*-seed*/attempts/*/start.json"):
            edit(path, lambda value: value.get("provenance", {}).update(made))
        for path in study.path.glob("*-seed*/attempts/*/heartbeat.json"):
            edit(path, lambda value: value.update({"device": cpu_model()} if "device" in value else {}))
    return study


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record's JSON on purpose: its checksum goes."""
    value = json.loads(path.read_text())
    value.pop("crc32", None)
    change(value)
    path.write_text(json.dumps(value))
