"""What is in the images; they run for anybody: no HOME, no network, nothing to write, no other Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.containers.images import Images, as_user, podman
from vaehpc import __version__
from vaehpc.tasks.visit import MachineReport

TARGETS = ("train", "analysis")
HERE = "/opt/vaehpc/bin/python -m vaehpc.doctor --here"


@pytest.mark.parametrize("target", TARGETS)
def test_labels_and_command(images: Images, target: str) -> None:
    assert images.path(target, "tar").exists()
    (found,) = json.loads(podman("image", "inspect", f"localhost/vaehpc-{target}:{__version__}").stdout)
    assert found["Config"]["Labels"]["org.opencontainers.image.version"] == __version__
    assert len(found["Config"]["Labels"]["org.opencontainers.image.revision"]) >= 12
    assert "Entrypoint" not in found["Config"]
    assert found["Config"]["Cmd"] == ["python3", "-m", "vaehpc.doctor", "--here"]
    assert found["Config"]["User"] == "65534:65534"


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_builds_stays_behind(images: Images, target: str) -> None:
    root = images.path(target, "dir")
    left = ["gcc", "cc", "make", "git", "pip", "pip3"]
    assert [
        name
        for name in left
        for folder in ("usr/bin", "usr/local/bin", "opt/vaehpc/bin")
        if (root / folder / name).exists()
    ] == []
    assert not list(root.glob("opt/vaehpc/lib/python3*/site-packages/pip"))
    assert not (root / "build").exists()
    tensorflow = list(root.glob("opt/vaehpc/lib/python3*/site-packages/tensorflow"))
    assert bool(tensorflow) == (target == "train")
    certificates = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    large = [path for path in (root / "run").rglob("*") if path.is_file()]
    assert not any(path.read_bytes() == certificates for path in large)


@pytest.mark.parametrize("target", TARGETS)
def test_for_an_unknown_user_without_network_on_a_closed_root(images: Images, target: str) -> None:
    """The image's own command, under podman: TensorFlow computes, and wants nothing written but temporary files."""
    assert images.path(target, "tar").exists()
    image = f"localhost/vaehpc-{target}:{__version__}"
    closed = (
        "--read-only",
        "--network",
        "none",
        "--cap-drop",
        "all",
        "--user",
        "12345:12345",
    )
    said = podman("run", "--rm", *closed, "--unsetenv", "HOME", image).stdout
    assert "Nothing wrong, 0 not checked" in said
    assert f"in the {target} image sha256:" in said
    assert ("a convolution is right" in said) == (target == "train")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", ["dir", "sif"])
def test_contained(images: Images, target: str, form: str) -> None:
    image = images.path(target, form)
    contained = "apptainer --quiet exec --containall --net --network none --no-home"
    said = as_user(f"{contained} {image} env --unset=HOME {HERE}", images.folder)
    assert "Nothing wrong, 0 not checked" in said
    written = f"{contained} {image} /bin/sh -c 'touch /opt/vaehpc/new 2>&1 || true'"
    assert "Read-only file system" in as_user(written, images.folder)


@pytest.mark.parametrize("form", ["dir", "sif"])
def test_all_forms_are_one_image(images: Images, form: str) -> None:
    described = json.loads((images.path("train", "dir") / "opt/vaehpc/image.json").read_text())
    shown = as_user(f"apptainer --quiet exec {images.path('train', form)} {HERE} --json", images.folder)
    report = MachineReport.model_validate_json(shown.splitlines()[-1])
    assert report.image is not None
    assert report.image.model_dump() == described
    assert report.packages["vaehpc"] == f"{__version__}+g{described['revision']}"


@pytest.fixture
def poisoned(images: Images) -> Iterator[Path]:
    """A home with a numpy of its own, which ends whatever imports it."""
    with TemporaryDirectory(dir=images.folder, prefix="home-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        for version in (11, 12, 13):
            package = home / f".local/lib/python3.{version}/site-packages/numpy"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text("raise SystemExit('poisoned')\n")
        yield home


def test_the_hosts_packages_are_not_picked_up(images: Images, poisoned: Path) -> None:
    image = images.path("analysis", "dir")
    (packages,) = [path for path in poisoned.rglob("site-packages") if "python3.11" in str(path)]
    show = "-c 'import numpy, os; print(os.path.exists(os.path.expanduser(\"~/.local\")), numpy.__file__)'"
    seen = as_user(f"apptainer --quiet exec --home {poisoned} {image} python3 {show}", images.folder)
    assert seen.startswith("True /opt/vaehpc/lib/")  # the poison was there
    clean = f"apptainer --quiet exec --cleanenv --home {poisoned} {image} python3 {show}"
    assert as_user(clean, images.folder, PYTHONPATH=str(packages)).startswith("True /opt/vaehpc/lib/")
    charliecloud = f"ch-run '--unset-env=PYTHON*' --set-env --bind={poisoned}:/mnt {image} -- python3 {show}"
    assert "/opt/vaehpc/lib/" in as_user(
        charliecloud, images.folder, PYTHONPATH=f"/mnt/{packages.relative_to(poisoned)}"
    )


def test_keras_reads_no_settings_of_the_host(images: Images, poisoned: Path) -> None:
    (poisoned / ".keras").mkdir()
    (poisoned / ".keras/keras.json").write_text('{"floatx": "float16", "backend": "torch"}')
    show = "-c 'import keras; print(keras.backend.backend(), keras.backend.floatx())'"
    line = f"apptainer --quiet exec --home {poisoned} {images.path('train', 'dir')} python3 {show} 2>/dev/null"
    assert as_user(line, images.folder).split() == ["tensorflow", "float32"]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_carries_the_moment_of_its_build(images: Images, target: str) -> None:
    assert images.path(target, "tar").exists()
    image = f"localhost/vaehpc-{target}:{__version__}"
    (found,) = json.loads(podman("image", "inspect", image).stdout)
    assert found["Created"].startswith("1980-01-01T00:00:00")
    newer = ("find", "/opt/vaehpc", "/ch", "-newermt", "1980-01-02")
    assert podman("run", "--rm", "--network", "none", image, *newer).stdout == ""
