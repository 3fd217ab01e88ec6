"""`python tests/studies/make.py`: the small study that a release leaves in the tests, made by the release's own code.

Writes tests/studies/RELEASE.tar.xz: 24 faces of 16 x 16 pixels in shards, and a study of two arms with two seeds, of
which the VAE is made to jump. It takes some minutes. Run it with the Python of a checkout of the release, before any
other change; what is there already is not made again, for no later code can make it.

Left out is what no command reads back, most images, and of three runs steps, checkpoints and quantiles. Paths stand as
FACES and STUDY, which whoever unpacks it fills in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import vaehpc

ARMS = """
[vae-spike]
base = "vae-tiny"
question = "a VAE that is made to jump"
[vae-spike.spike]
kind = "log_var"
strength = 30.0
steps_before_end = 60
"""
PREPARE = "--synthetic 24 --size 16 --num-train 20 --images-per-shard 12 --workers 1 --out faces"
LAUNCH = (
    "--study old --data faces --executor local --arms ae arms.toml --seeds 2 --model.filters 4 4 8 8 --model.z-dim 8"
    " --train.batch-size 4 --train.epochs 80 --train.learning-rate 0.002 --train.keep-every-epochs 1000"
)
WHOLE = "vae-spike-seed001"
"""The run that keeps everything: it jumped, and can be replayed."""
MOST_BYTES = 300_000


def main() -> None:
    """Make the study in a temporary folder, and pack it."""
    target = Path(__file__).with_name(f"{vaehpc.__version__}.tar.xz")
    if target.exists():
        sys.exit(f"{target} is there already")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "arms.toml").write_text(ARMS)
        for command, arguments in (("prepare", PREPARE), ("launch", LAUNCH)):
            subprocess.run([sys.executable, "-m", f"vaehpc.{command}", *arguments.split()], cwd=root, check=True)
        strip(root / "runs" / "old")
        for path in root.rglob("*"):
            if path.is_file() and path.suffix in (".json", ".jsonl", ""):
                text = path.read_text().replace(str(root / "faces"), "FACES").replace(str(root / "runs/old"), "STUDY")
                path.write_text(text)
        with tarfile.open(target, "w:xz") as archive:
            for name in ("faces", "runs/old"):
                archive.add(root / name, Path(name).name, filter=without_owner)
    print(f"{target}: {target.stat().st_size:,} bytes")
    if target.stat().st_size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES:,} bytes")


def strip(study: Path) -> None:
    """Leave what commands read."""
    for path in (study / "jobs", study / "pages", study / "figures"):
        shutil.rmtree(path)
    for name in ("runs.csv", "columns.csv", "report.html", "report.md", "ro-crate-metadata.json"):
        (study / name).unlink()
    for run in study.glob("*-seed*"):
        for log in run.glob("attempts/*/log"):
            log.write_text("\n".join(log.read_text().splitlines()[-3:]) + "\n")
        for start in run.glob("attempts/*/start.json"):
            lines = start.read_text().splitlines(keepends=True)
            start.write_text("".join('  "host": "node1",\n' if '"host"' in line else line for line in lines))
        for checkpoint in sorted((run / "checkpoints").iterdir())[: -1 if run.name == WHOLE else None]:
            shutil.rmtree(checkpoint)
        if run.name != WHOLE:
            (run / "recorder" / "steps.arrow").unlink()
            (run / "statistics" / "mahalanobis_qq.npy").unlink()
            for trigger in run.glob("triggers/*"):
                (trigger / "ring.arrow").unlink()
                shutil.rmtree(trigger / "snapshot")
        for image in (run / "latents" / "images").iterdir():
            if (run.name, image.name) != (WHOLE, "reconstructions.png"):
                image.unlink()


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's file, of no time."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
