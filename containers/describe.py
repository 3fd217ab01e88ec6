"""Writes /opt/vaehpc/image.json while an image is built: which image, of which revision, and a digest of what is in it.

The digest is of files and not of layers: the same for an archive, a sandbox and a SIF made of one image, and for two
builds of the same files. A run records it.
"""

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path("/opt/vaehpc")
BASE = (Path("/etc/os-release"), Path("/var/lib/dpkg/status"))
"""What tells one base image from another."""


def digest(paths: list[Path]) -> str:
    """SHA-256 of names and contents."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path}\n".encode())
    return f"sha256:{total.hexdigest()}"


def main() -> None:
    """Arguments: the target, the revision."""
    target, revision = sys.argv[1:]
    own = sorted(path for path in ROOT.rglob("*") if path.is_file())
    described = {
        "target": target,
        "revision": revision,
        "digest": digest([*own, *(path for path in BASE if path.exists())]),
    }
    (ROOT / "image.json").write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
