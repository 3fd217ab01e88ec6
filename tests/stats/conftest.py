from importlib.util import find_spec

import pytest

from vaehpc.schema.plan import PlanConfig
from vaehpc.study.presets import analysis_plan

# `make test` does without independent implementations; `make test-slow` installs them.
collect_ignore = [] if find_spec("statsmodels") else ["test_independent.py"]


@pytest.fixture(scope="session")
def plan() -> PlanConfig:
    """The plan that studies use."""
    return analysis_plan()
