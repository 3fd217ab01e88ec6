"""Events beside the states that were measured around them."""

from tests.examples import stability
from vaehpc.schema.results import CourseMark, RunCourse, StateChange
from vaehpc.stats.edge import edge_summary


def mark(kind, after, step):
    return CourseMark(kind=kind, after=after, step=step, factor=4.0)


def test_an_event_has_the_state_before_it_and_what_changed_across_it():
    states = [stability(100, 0.25), stability(200, 0.5), stability(300, 4.5), stability(450, 0.75), stability(600, 0.1)]
    (event,) = edge_summary(RunCourse(marks=(mark("jump", 310, 320),)), None, states).events
    assert (event.kind, event.step, event.state_step, event.sharpness_ratio) == ("jump", 320, 300, 4.5)
    assert event.changes == (
        StateChange(
            steps=(300, 450), radii=(16, 16), decoder_radii=(80, 80), scale=2, scale_share=0.75, loss_paid=-1.5
        ),
    )


def test_a_state_within_an_event_parts_its_change():
    states = [stability(300), stability(315, 9.0), stability(400)]
    (event,) = edge_summary(RunCourse(marks=(mark("jump", 310, 320),)), None, states).events
    assert (event.state_step, [change.steps for change in event.changes]) == (300, [(300, 315), (315, 400)])


def test_states_that_end_where_an_event_begins_or_begin_where_it_ends_hold_none_of_it():
    states = [stability(300), stability(310), stability(320), stability(400)]
    (event,) = edge_summary(RunCourse(marks=(mark("jump", 310, 320),)), None, states).events
    assert (event.state_step, [change.steps for change in event.changes]) == (310, [(310, 320)])


def test_an_event_that_no_states_span_has_no_change():
    course = RunCourse(marks=(mark("jump", 40, 50), mark("unconfirmed", 900, 950)))
    first, last = edge_summary(course, None, [stability(100), stability(200)]).events
    assert (first.state_step, first.sharpness_ratio, first.changes) == (None, None, ())
    assert (last.state_step, last.changes) == (200, ())


def test_a_nan_is_an_event_without_an_end():
    course = RunCourse(marks=(mark("jump", 110, 120),))
    jump, nan = edge_summary(course, 177, [stability(100, 2.0), stability(150, 3.0), stability(177, 7.0)]).events
    assert (jump.kind, jump.state_step, [change.steps for change in jump.changes]) == ("jump", 100, [(100, 150)])
    assert (nan.kind, nan.step, nan.state_step, nan.sharpness_ratio, nan.changes) == ("nonfinite", 177, 177, 7.0, ())


def test_calm_are_states_with_nothing_on_either_side():
    states = [stability(step, step / 1000) for step in (100, 200, 300, 400, 500, 600)]
    found = edge_summary(RunCourse(marks=(mark("excursion", 210, 220),)), 650, states)
    assert (found.calm_ratios, found.num_states) == ((0.1, 0.4, 0.5), 6)
    assert edge_summary(RunCourse(), None, [stability(100, None), stability(200, 0.5)]).calm_ratios == (0.5,)
