import tomllib

import pytest

from vaehpc.files import declaration
from vaehpc.schema.plan import PlanConfig


@pytest.fixture(scope="session")
def plan() -> PlanConfig:
    """The plan that studies use."""
    return PlanConfig.model_validate(tomllib.loads(declaration("analysis/plan.toml")))
