"""Real clusters for tests. Each process of pytest-xdist has its own: they take seconds, and tests break them."""

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def shared_cluster_without_accounting() -> Iterator[Cluster]:
    with Cluster(accounting=False) as running:
        yield running


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with nothing queued and all nodes idle; a test may do anything to it."""
    yield shared_cluster
    shared_cluster.mend()


@pytest.fixture
def cluster_without_accounting(shared_cluster_without_accounting: Cluster) -> Iterator[Cluster]:
    """The same without slurmdbd: no sacct, no accounts."""
    yield shared_cluster_without_accounting
    shared_cluster_without_accounting.mend()
