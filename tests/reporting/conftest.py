import pytest

from tests import plant
from vaehpc.schema.results import StudySummary
from vaehpc.study.files import StudyDir


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDir, StudySummary]:
    """Every class but 'unclassified', and a missing run, on synthetic faces, with its report; not to be changed."""
    classes: plant.Classes = {
        "ae": ["regular"] * 8,
        "vae-tiny": ["regular", "diverged", None, "shifted", "regular", "diverged", "collapsed", "regular"],
        "vae-eps5": ["regular", "nonfinite"],
    }
    study, summary = plant.classed(tmp_path_factory.mktemp("runs") / "mixed", classes)
    plant.reported(study, summary)
    return study, summary
