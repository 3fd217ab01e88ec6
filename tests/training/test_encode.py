"""z of the decoded images: where perturbations and paths go."""

import numpy as np
import pytest

from vaehpc.training.encode import GRID_COLUMNS, PERTURBATIONS, interpolated, perturbed

Z = np.random.default_rng(0).normal(size=(2, 8))


def test_perturbations_move_away_in_one_direction_by_multiples_of_the_length() -> None:
    assert len(PERTURBATIONS) == GRID_COLUMNS
    steps = perturbed(Z, np.random.default_rng(1)).reshape(2, GRID_COLUMNS, 8) - Z[:, np.newaxis]
    lengths = np.linalg.norm(steps, axis=2)
    np.testing.assert_allclose(lengths, np.outer(np.linalg.norm(Z, axis=1), PERTURBATIONS))
    directions = steps[:, 1:] / lengths[:, 1:, np.newaxis]
    np.testing.assert_allclose(directions, np.broadcast_to(directions[:, :1], directions.shape))
    assert abs(directions[0, 0] @ directions[1, 0]) < 0.99


def test_perturbations_depend_on_the_key_alone() -> None:
    one, again, other = (perturbed(Z, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_paths_are_straight_and_end_at_the_images() -> None:
    paths = interpolated(Z[:1], Z[1:]).reshape(GRID_COLUMNS, 8)
    np.testing.assert_array_equal(paths[[0, -1]], Z)
    np.testing.assert_allclose(np.diff(paths, axis=0), np.broadcast_to((Z[1] - Z[0]) / 9, (9, 8)))
    assert interpolated(Z, Z[::-1]).shape == (2 * GRID_COLUMNS, 8)
    assert paths[3] == pytest.approx(2 / 3 * Z[0] + 1 / 3 * Z[1])
