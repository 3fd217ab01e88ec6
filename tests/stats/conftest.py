import tomllib

import pytest

from vaehpc.config import PlanConfig
from vaehpc.files import declaration


@pytest.fixture(scope="session")
def plan() -> PlanConfig:
    """The plan that studies use."""
    return PlanConfig.model_validate(tomllib.loads(declaration("analysis/plan.toml")))
