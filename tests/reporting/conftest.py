import pytest
from fake_study import MIXED, make_study

from vaehpc.reporting.document import write_report
from vaehpc.schema.results import StudySummary
from vaehpc.study.files import StudyDir


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDir, StudySummary]:
    """A study with synthetic faces and its report; not to be changed."""
    study, summary = make_study(tmp_path_factory.mktemp("runs") / "mixed", MIXED)
    write_report(study, summary)
    return study, summary
