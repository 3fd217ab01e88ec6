"""Images, built once for all test processes, and clusters to run them on."""

import os

import pytest

from tests.cluster.conftest import cluster, shared_cluster
from tests.containers.images import Images, built, install

__all__ = ["cluster", "shared_cluster"]


@pytest.fixture(scope="session")
def images() -> Images:
    if os.geteuid() != 0:
        pytest.skip("needs root: for the installation of podman and Apptainer, and for a base made by debootstrap")
    install()
    return built()
