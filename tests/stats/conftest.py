import tomllib

import pytest

from vaehpc.schema.plan import PlanConfig
from vaehpc.study.files import declaration


@pytest.fixture(scope="session")
def plan() -> PlanConfig:
    """The plan that studies use."""
    return PlanConfig.model_validate(tomllib.loads(declaration("analysis/plan.toml")))
