"""The README's lines for a cluster, typed as written but for the number of seeds, on a real Slurm."""

import re
import shutil
from pathlib import Path

from tests.cluster import users
from tests.cluster.cluster import Cluster
from vaehpc.schema.config import DataConfig
from vaehpc.study.files import StudyDir

REPOSITORY = Path(__file__).parents[2]


def test_lines_for_a_cluster(cluster: Cluster, faces: DataConfig) -> None:
    folder = cluster.new_folder()
    shutil.copytree(faces.path, folder / "data/celeba-96")
    for path in folder.rglob("*"):
        shutil.chown(path, users.USER, users.USER)
    section = (REPOSITORY / "README.md").read_text().partition("## On a cluster with Slurm")[2]
    copy, doctor, launch, watch = section.partition("```bash\n")[2].partition("```")[0].strip().splitlines()

    cluster.user(copy, cwd=folder)
    site = folder / "site.toml"
    text = site.read_text()
    for key, value in (("gpu_partition", "gpu"), ("cpu_partition", "cpu"), ("account", "faces")):
        text, count = re.subn(rf'^# {key} = ".*"', f'{key} = "{value}"', text, flags=re.MULTILINE)
        assert count == 1
    site.write_text(text)

    found = cluster.user(doctor, cwd=folder, seconds=120, check=False)
    assert found.returncode == 3  # no node here has a GPU, and that alone is wrong
    wrong = [line for line in found.stdout.splitlines() if line.startswith("WRONG")]
    assert [line.split()[1] for line in wrong] == ["GPU"], found.stdout

    assert "--seeds 16" in launch
    cluster.user(launch.replace("--seeds 16", "--seeds 1 --arms vae-tiny --device cpu --train.epochs 2"), cwd=folder)
    watched = cluster.user(watch, cwd=folder, seconds=300)
    study = StudyDir(folder / "runs/article")
    assert study.report.exists()
    assert all(arm.num_missing == 0 for arm in study.summary().arms.values())
    assert "1 of 1 trained" in watched.stdout
    assert str(study.report) in watched.stdout
