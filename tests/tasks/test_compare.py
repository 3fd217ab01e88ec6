import pytest

from tests import plant
from tests.reporting.page import Page, no_requests
from vaehpc import report
from vaehpc.command import UserError
from vaehpc.schema.config import ArmConfig
from vaehpc.study.files import StudyDir, write_model
from vaehpc.tasks.compare import compare


def laid(folder, name: str, classes: plant.Classes, **changes) -> StudyDir:
    study, _ = plant.classed(folder / name, classes)
    config = study.config().model_copy(update=changes)
    write_model(study.config_path, config)
    return study


def with_rate(arm: ArmConfig, rate: float) -> ArmConfig:
    return arm.model_copy(update={"train": arm.train.model_copy(update={"learning_rate": rate})})


CLASSES: plant.Classes = {"ae": ["regular"] * 4, "vae-tiny": ["diverged", "regular", None]}


def test_studies_stand_beside_each_other_with_what_differs(tmp_path):
    one = laid(tmp_path, "one", CLASSES)
    two = laid(tmp_path, "two", {"ae": ["regular"] * 2, "vae-eps5": ["regular"]}, root_seed=8)
    arms = {name: with_rate(arm, 0.01) if name == "ae" else arm for name, arm in two.config().arms.items()}
    write_model(two.config_path, two.config().model_copy(update={"arms": arms}))
    page = Page(compare([one, two]).read_text())
    no_requests(page)
    rows = [row for table in page.tables if table[0][:2] == ["arm", "study"] for row in table[1:]]
    assert [row[:3] for row in rows] == [
        ["ae", "one", "0 of 4 diverged or NaN"],
        ["ae", "two", "0 of 2 diverged or NaN"],
        ["vae-tiny", "one", "1 of 2 diverged or NaN"],
        ["vae-eps5", "two", "0 of 1 diverged or NaN"],
    ]
    assert "ae : differs in train.learning_rate alone" in page.text
    assert "Only in one: vae-tiny." in page.text
    assert "Only in two: vae-eps5." in page.text
    assert "share" not in page.text.partition("Rates")[0]
    (differing,) = [table for table in page.tables if table[0][:2] == ["arm", "setting"]]
    assert differing[1:] == [["ae", "train.learning_rate", "0.0005", "0.01", "two"]]
    costs = [row for table in page.tables if table[0][:2] == ["study", "arm"] for row in table[1:]]
    assert costs[0][:3] == ["one", "ae", "4"]
    links = {attributes["href"] for attributes in page.of("a")}
    assert {"./report.html", "../two/report.html", "../two/pages/vae-eps5-seed000.html"} <= links
    assert "Holm" not in page.text and "p =" not in page.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("nothing", "ae : the same runs where seeds are the same: they count once"),
        ("root seed", "ae : equal in all but the seeds: rates may be compared, and their counts added"),
        ("data", "have different data"),
        (
            "plan",
            "Their analysis plans differ (classes.diverged_factor 2.0 and 3.0): a run may be called diverged in one",
        ),
        ("tests", "Their analysis plans differ (contrasts.rate 0.25 and 0.5): classes and jumps are judged alike, and"),
        ("streams", "Their random streams are crossed otherwise: equal seeds need not be equal runs"),
    ],
)
def test_what_may_be_compared_is_said(tmp_path, change, said):
    one = laid(tmp_path, "one", {"ae": ["regular"]})
    config = one.config()
    classes = config.plan.classes.model_copy(update={"diverged_factor": 3.0})
    changes = {
        "nothing": {},
        "root seed": {"root_seed": 8},
        "data": {"data": config.data.model_copy(update={"sha256": "1" * 64})},
        "plan": {"plan": config.plan.model_copy(update={"classes": classes})},
        "tests": {
            "plan": config.plan.model_copy(update={"contrasts": config.plan.contrasts.model_copy(update={"rate": 0.5})})
        },
        "streams": {"cross": {"initialisation": 4}},
    }
    two = laid(tmp_path, "two", {"ae": ["regular"]}, **changes[change])
    write_model(two.config_path, two.config().model_copy(update={"provenance": config.provenance}))
    found = Page(compare([one, two]).read_text()).text
    assert said in found
    alone = {"data": "data", "plan": "analysis plan", "streams": "the design of its random streams"}
    if change in alone:
        assert f"ae : differs in {alone[change]} alone" in found
    assert ("the same runs where seeds are the same" in found) == (change in ("nothing", "tests"))


def test_a_study_without_a_report_or_given_twice_is_refused(tmp_path):
    one = laid(tmp_path, "one", {"ae": ["regular"]})
    new = plant.study(tmp_path / "new", plant.classed_config("new", {"ae": ["regular"]}))
    with pytest.raises(UserError, match="new has no report yet"):
        compare([one, new])
    with pytest.raises(UserError, match="is given twice"):
        compare([one, one])


def test_the_report_command_compares_several_studies(tmp_path, capsys):
    one, two = (laid(tmp_path, name, {"ae": ["regular"]}) for name in ("one", "two"))
    before = one.report.exists()
    assert report.main([str(one.path), str(two.path)]) == 0
    assert "Comparison: " in capsys.readouterr().out
    assert (one.path / "comparison.html").exists()
    assert one.report.exists() == before
