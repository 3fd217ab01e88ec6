"""Images, built once for all test processes, and clusters to run them on."""

import pytest

from tests.cluster.conftest import cluster, shared_cluster
from tests.containers.images import Images, built

__all__ = ["cluster", "shared_cluster"]


@pytest.fixture(scope="session")
def images() -> Images:
    return built()
