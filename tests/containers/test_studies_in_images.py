"""Studies in images on a real Slurm: what comes out is, to the bit, what comes out on the machine itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.celeba_files import write_celeba
from tests.cluster import users
from tests.cluster.cluster import Cluster
from tests.cluster.studies import LONG, Place, new_place
from tests.containers.images import Images, as_user
from vaehpc.schema.config import DataConfig

RUN = "vae-tiny-seed000"
ARMS = ("ae", "vae-tiny")
FORMS = {"sandbox": ("apptainer", "dir"), "SIF": ("apptainer", "sif"), "Charliecloud": ("charliecloud", "dir")}
CLIENT = ("sbatch", "srun", "scancel", "squeue", "sacct", "sacctmgr", "scontrol", "sinfo")
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
Results = dict[str, Any]


@pytest.fixture
def place(cluster: Cluster, faces: DataConfig) -> Place:
    return new_place(cluster, faces.path)


def with_images(place: Place, images: Images, form: str, more: str = "", gpus: int = 0, **site: Any) -> Place:
    """The place with a site's file that names images. Their TensorFlow knows no GPUs: nothing asks for one."""
    if gpus:
        site["device"] = ""
    place.site(**site)
    text = (place.folder / "site.toml").read_text().replace("[jobs.train]\n", f"[jobs.train]\ngpus = {gpus}\n")
    runtime, suffix = FORMS[form]
    names = f'image = "{images.path("train", suffix)}"\nanalysis_image = "{images.path("analysis", suffix)}"\n'
    place.write("site.toml", f'{text}\n[container]\nruntime = "{runtime}"\n{names}{more}')
    return place


def outside(cluster: Cluster, faces: DataConfig, epochs: int, seeds: int) -> dict[str, Results]:
    """Results of a study that ran on this machine, without Slurm and without an image."""
    place = new_place(cluster, faces.path)
    place.settings(epochs)
    line = place.line(seeds=seeds, arms=ARMS).replace("--site site.toml", "--executor local")
    cluster.user(line, cwd=place.folder, seconds=900)
    return results(place)


def results(place: Place) -> dict[str, Results]:
    return {run.name: place.results(run.name) for run in place.study.config().runs()}


@pytest.fixture(scope="session")
def undisturbed(shared_cluster: Cluster, faces: DataConfig) -> dict[str, Results]:
    return outside(shared_cluster, faces, epochs=LONG, seeds=1)


def digest(images: Images, target: str) -> str:
    described = json.loads((images.path(target, "dir") / "opt/vaehpc/image.json").read_text())
    found: str = described["digest"]
    return found


def test_study_in_a_sandbox(place: Place, images: Images, undisturbed: dict[str, Results]) -> None:
    """Trained, measured and reported in images; study and runs record in which."""
    with_images(place, images, "sandbox").launch(arms=ARMS)
    place.wait_until_ended()
    assert results(place) == undisturbed
    assert place.run(RUN).trained().provenance.image_digest == digest(images, "train")
    assert place.study.config().provenance.image_digest == digest(images, "train")
    assert digest(images, "train") in place.study.report.read_text()


@pytest.mark.parametrize("form", FORMS)
def test_asked_for_a_checkpoint(place: Place, images: Images, undisturbed: dict[str, Results], form: str) -> None:
    """By the signal that Slurm sends before the time limit, which must not reach what keeps the image open."""
    with_images(place, images, form).launch()
    for attempt in (1, 2):
        with place.held(RUN, 60 * attempt, attempt):
            place.shell(f"scancel --batch --signal=USR2 {place.element('train-0001')}")
    place.wait_until_ended()
    assert place.kinds("train-0001") == ["start", "requeue"] * 2 + ["start", "done"]
    assert place.results(RUN) == undisturbed[RUN]
    assert place.run(RUN).trained().provenance.image_digest == digest(images, "train")


def test_put_back_by_hand(place: Place, images: Images, undisturbed: dict[str, Results]) -> None:
    """TERM reaches everything, the process that keeps a SIF open too: a checkpoint, or the one before, is there."""
    with_images(place, images, "SIF").launch()
    with place.held(RUN, 50):
        place.shell(f"scontrol requeue {place.element('train-0001')}")
    place.wait_until_ended()
    assert place.kinds("train-0001").count("start") == 2
    assert place.results(RUN) == undisturbed[RUN]


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_time_limit(place: Place, images: Images, undisturbed: dict[str, Results], form: str) -> None:
    """The task stands still until Slurm warns it: however fast this machine is, its time is up in the middle."""
    with_images(place, images, form, hours=2 / 60).launch()
    with place.held(RUN, 50):
        place.cluster.wait(place.run(RUN).stop.exists, "a warning", 150)
    place.wait_until_ended()
    assert place.kinds("train-0001").count("requeue") >= 1
    assert place.kinds("train-0001")[-1] == "done"
    assert place.first_step(RUN, 2) > 0
    assert place.results(RUN) == undisturbed[RUN]


@pytest.fixture(scope="session")
def wide_study(shared_cluster: Cluster, faces: DataConfig) -> dict[str, Results]:
    return outside(shared_cluster, faces, epochs=4, seeds=4)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_wide_study(place: Place, images: Images, wide_study: dict[str, Results], form: str) -> None:
    """4 seeds x 2 arms."""
    with_images(place, images, form)
    place.settings(epochs=4)
    place.launch(seeds=4, arms=ARMS)
    place.wait_until_ended(600)
    assert len(results(place)) == 8
    assert results(place) == wide_study
    assert all(arm["num_missing"] == 0 for arm in place.summary()["arms"].values())


# Launched from inside an image


def inside(place: Place, images: Images, binds: Sequence[Path] = ()) -> str:
    """What comes before a command that is to run in the image, which sees the user's folders."""
    options = " ".join(f"--bind {path}" for path in (place.cluster.home, *binds))
    return f"apptainer --quiet exec --no-home {options} --pwd {place.folder} {images.path('analysis', 'sif')}"


def test_launched_from_inside_with_slurms_client(place: Place, images: Images) -> None:
    with_images(place, images, "SIF")
    place.settings(epochs=2)
    libraries = [LIBRARIES / name for name in ("slurm-wlm", "libmunge.so.2", "liblz4.so.1", "libreadline.so.8")]
    client = [Path("/usr/bin", name) for name in CLIENT]
    where = inside(place, images, [place.cluster.folder / "etc", place.cluster.folder / "run", *libraries, *client])
    said = place.shell(f"{where} {place.line()}").stdout
    assert "Queued." in said
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0
    assert place.run(RUN).trained().provenance.image_digest == digest(images, "train")
    assert "1 done" in place.shell(f"{where} python -m vaehpc.status study").stdout


def test_launched_from_inside_without_a_client(place: Place, images: Images) -> None:
    """The one line that it ends with, given on the host, submits everything."""
    with_images(place, images, "SIF")
    place.settings(epochs=2)
    said = place.shell(f"{inside(place, images)} {place.line()}").stdout
    assert place.cluster.root("squeue --noheader") == ""
    line = said.strip().splitlines()[-1].partition("Submit them on the host with: ")[2]
    assert line.startswith("sh /")
    place.shell(line)
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0


def test_launched_inside_for_tasks_without_an_image(place: Place, images: Images) -> None:
    place.site()
    done = place.shell(f"{inside(place, images, [Path('/usr/bin/sbatch')])} {place.line()}", check=False)
    assert done.returncode == 2
    assert "this launcher runs in an image, and the site's file names none for the tasks" in done.stderr


# Launched from outside


def light_python(folder: Path) -> Path:
    """A Python with what the lock `launcher` names, and this repository's code; no TensorFlow, no SciPy."""
    users.make_python(folder)
    python = folder / "python/bin/python"
    lock = users.REPOSITORY / "containers/locks/launcher.txt"
    (paths,) = (folder / "python").rglob("tests.pth")
    code = paths.read_text().splitlines()[0]
    paths.unlink()
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--require-hashes"]
    subprocess.run([*pip, "--requirement", lock], check=True)
    paths.write_text(f"{code}\n")
    return python


def test_launched_by_a_light_python(place: Place, images: Images) -> None:
    """The host has neither TensorFlow nor SciPy; also the data are prepared in an image, before the rest."""
    with_images(place, images, "sandbox")
    place.settings(epochs=2)
    folder = place.cluster.new_folder()
    python = light_python(folder)
    found = place.shell(f"{python} -c 'import tensorflow'", check=False)
    assert "No module named 'tensorflow'" in found.stderr
    celeba = write_celeba(folder / "celeba", 60)
    for path in folder.rglob("celeba*"):
        os.chown(path, place.folder.stat().st_uid, place.folder.stat().st_gid)
    line = place.line(data=f"--celeba {celeba} --data data").replace("python", str(python), 1)
    assert "prepared first" in place.shell(line).stdout
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0


def test_doctor_looks_into_the_images(place: Place, images: Images) -> None:
    with_images(place, images, "SIF")
    line = "python -m vaehpc.doctor --site site.toml --data faces --probe"
    said = place.shell(line).stdout
    assert f"image of train: {images.path('train', 'sif')}: vaehpc" in said
    assert digest(images, "analysis") in said
    assert "in the train image sha256:" in said  # by the probe on the node
    assert "Nothing wrong" in said
    with_images(place, images, "SIF", gpus=1)
    wrong = place.shell(line.replace("--probe", ""), check=False)
    assert wrong.returncode == 3
    assert "has no GPU libraries (tensorflow-cpu)" in wrong.stdout


# What is wrong is said before anything is queued


def refused(place: Place) -> str:
    done = place.launch(check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Nothing was submitted." in done.stderr
    assert place.cluster.root("squeue --noheader") == ""
    assert not place.study.path.exists()
    return done.stderr


def test_what_is_wrong_with_images_is_said_before_anything_is_queued(place: Place, images: Images) -> None:
    site = place.folder / "site.toml"
    with_images(place, images, "SIF")
    site.write_text(site.read_text().replace("train.sif", "trian.sif"))
    assert "trian.sif does not exist: correct image in [container]" in refused(place)

    with_images(place, images, "sandbox", more='binds = ["/scratch-of-nobody"]\n')
    assert "/scratch-of-nobody, which is to be seen in the image, does not exist here" in refused(place)

    with_images(place, images, "sandbox", gpus=1)
    message = refused(place)
    assert "has no GPU libraries (tensorflow-cpu), and a training asks for 1 GPU" in message
    assert "gpus = 0 in [jobs.train]" in message

    with_images(place, images, "SIF")
    site.write_text(site.read_text().replace("analysis.sif", "train.sif"))
    assert "lacks what statistics needs: " in refused(place)


def test_image_of_another_version(place: Place, images: Images) -> None:
    older = place.folder / "older.dir"
    as_user(f"cp --archive --link {images.path('train', 'dir')} {older}", images.folder)
    (package,) = older.glob("opt/vaehpc/lib/python3*/site-packages/vaehpc")
    text = (package / "__init__.py").read_text()
    for path in (package / "__init__.py", *package.glob("__pycache__/__init__.*")):
        path.unlink()
    (package / "__init__.py").write_text(text.replace('__version__ = "', '__version__ = "0.0.1-'))
    with_images(place, images, "sandbox")
    site = place.folder / "site.toml"
    site.write_text(site.read_text().replace(str(images.path("train", "dir")), str(older)))
    assert "has vaehpc 0.0.1-" in refused(place)
    (package / "__init__.py").write_text("raise ImportError('of an older kind')\n")
    assert "has no usable vaehpc (ImportError: of an older kind)" in refused(place)
