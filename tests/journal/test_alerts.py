"""An alert's life, read as a specification: on both databases, through commits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlmodel import Session

from actors.journal.alerts import Facts, Stated, facts_of, grew_in_order
from actors.journal.commit import AlertAction, Condition
from actors.journal.store import Store
from actors.journal.tables import Alert, AlertHistory, Event, Excursion, ExcursionRevision
from actors.rules.errors import FailedPrecondition, InvalidArgument, NotFound, StaleEtag
from tests.journal.conftest import NOW_US, excursion

Write = Callable[..., Any]
KEY = "goods|shipment/S1|above-8"


def alerts(store: Store) -> list[Alert]:
    with Session(store.engine, expire_on_commit=False) as session:
        return list(session.execute(select(Alert).order_by(Alert.key, Alert.ordinal)).scalars())  # type: ignore[arg-type]


def the_alert(store: Store) -> Alert:
    (found,) = alerts(store)
    return found


def changes(store: Store, alert: Alert | None = None) -> list[str]:
    query = select(AlertHistory.change).order_by(AlertHistory.alert_id, AlertHistory.etag)  # type: ignore[call-overload]
    if alert is not None:
        query = query.where(AlertHistory.alert_id == alert.alert_id)
    with Session(store.engine) as session:
        return list(session.execute(query).scalars())


def kinds(store: Store) -> list[str]:
    with Session(store.engine) as session:
        return list(session.execute(select(Event.kind).order_by(Event.number)).scalars())  # type: ignore[call-overload]


def revisions(store: Store, number: int) -> list[ExcursionRevision]:
    mine = ExcursionRevision.excursion_id == number
    with Session(store.engine) as session:
        query = select(ExcursionRevision).where(mine).order_by(ExcursionRevision.revision)  # type: ignore[arg-type]
        return list(session.execute(query).scalars())


def act(alert: Alert, action: str, text: str = "", *, by: str = "Ada", etag: int | None = None) -> AlertAction:
    return AlertAction(alert_id=alert.alert_id, action=action, by=by, at_us=NOW_US + 5, text=text, etag=etag)


def ended(number: int, **more: object) -> Excursion:
    return excursion(number, **{"state": "ENDED", "ended_us": 1_000 * number + 500, **more})


def retracted(number: int, cause: str = "late") -> Excursion:
    return excursion(number, state="RETRACTED", cause=cause)


# ---------------------------------------------------------------- goods


def test_an_excursion_raises_an_alert(store: Store, write: Write) -> None:
    write(excursions=[excursion(1)])
    alert = the_alert(store)
    assert (alert.key, alert.kind, alert.state, alert.active) == (KEY, "goods", "OPEN", True)
    assert (alert.excursions, alert.open_excursions, alert.started_us, alert.tags) == (1, 1, 1_000, ["T1"])
    assert kinds(store) == ["excursion.confirmed", "alert.raised"]
    with Session(store.engine) as session:
        raised = session.get(Event, 2)
        assert raised is not None
        assert (raised.body["alert_id"], raised.body["state"], raised.carrier) == (alert.alert_id, "OPEN", "shipment/S1")
        assert session.execute(select(Excursion.alert_id)).scalars().all() == [alert.alert_id]  # type: ignore[call-overload]


def test_one_alert_stands_for_a_carrier_and_a_limit_however_many_tags_saw_it(store: Store, write: Write) -> None:
    write(excursions=[excursion(2, extreme=9.0)])
    write(excursions=[excursion(1, extreme=11.0, severity="CRITICAL"), excursion(3, extreme=11.0)])
    alert = the_alert(store)
    assert (alert.excursions, alert.tags, alert.severity) == (3, ["T1", "T2", "T3"], "CRITICAL")
    assert (alert.extreme, alert.extreme_us, alert.started_us) == (11.0, 1_000, 1_000), "the earliest of equals"
    assert changes(store) == ["raised", "updated"]


def test_another_limit_and_another_carrier_have_alerts_of_their_own(store: Store, write: Write) -> None:
    write(excursions=[excursion(1), excursion(2, limit_id="below-2", direction=-1), excursion(3, carrier="zone/W/COLD")])
    assert len(alerts(store)) == 3


def test_an_alert_is_cleared_when_all_its_excursions_ended_and_waits_for_a_person(store: Store, write: Write) -> None:
    write(excursions=[excursion(1), excursion(2)])
    write(excursions=[ended(1)])
    assert the_alert(store).active
    write(excursions=[ended(2, ended_us=9_000)])
    alert = the_alert(store)
    assert (alert.state, alert.active, alert.ended_us) == ("OPEN", False, 9_000)
    assert changes(store) == ["raised", "updated", "cleared"]
    assert kinds(store)[-2:] == ["excursion.ended", "alert.cleared"]


def test_an_excursion_found_when_it_is_over_raises_an_alert_that_is_not_active(store: Store, write: Write) -> None:
    write(excursions=[ended(1, cause="late", found_late=True)])
    alert = the_alert(store)
    assert (alert.state, alert.active, alert.ended_us) == ("OPEN", False, 1_500)


def test_an_excursion_after_all_were_over_calls_people_back(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(actions=[act(the_alert(store), "acknowledge")])
    write(excursions=[excursion(2)])
    alert = the_alert(store)
    assert (alert.state, alert.active, alert.ended_us) == ("OPEN", True, None)
    assert changes(store) == ["raised", "acknowledged", "recurred"]


def test_a_second_tag_does_not_undo_an_acknowledgement_while_the_condition_goes_on(store: Store, write: Write) -> None:
    write(excursions=[excursion(1)])
    write(actions=[act(the_alert(store), "acknowledge")])
    write(excursions=[excursion(2)])
    assert the_alert(store).state == "ACKNOWLEDGED"


def test_a_new_excursion_after_it_was_resolved_raises_a_new_alert(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(actions=[act(the_alert(store), "resolve", "doors closed")])
    write(excursions=[excursion(2)])
    first, second = alerts(store)
    assert (first.state, first.ordinal, first.excursions) == ("RESOLVED", 1, 1)
    assert (second.state, second.ordinal, second.excursions) == ("OPEN", 2, 1)


@pytest.mark.parametrize("cause", ["late", "custody", "profile", "quality"])
def test_a_late_change_to_an_excursion_of_a_resolved_alert_reopens_it(store: Store, write: Write, cause: str) -> None:
    write(excursions=[ended(1)])
    write(actions=[act(the_alert(store), "resolve", "short")])
    write(excursions=[ended(1, ended_us=90_000, extreme=15.0, cause=cause)])
    alert = the_alert(store)
    assert (alert.state, alert.reopened, alert.extreme, alert.ended_us) == ("OPEN", 1, 15.0, 90_000)
    assert (alert.resolved_by, alert.resolution) == ("", ""), "who had resolved it is in the history"
    assert changes(store) == ["raised", "resolved", "reopened"]
    assert [(one.revision, one.cause, one.extreme) for one in revisions(store, 1)] == [(1, "reading", 9.0), (2, cause, 15.0)]


def test_an_excursion_that_only_goes_on_in_order_does_not_reopen_its_resolved_alert(store: Store, write: Write) -> None:
    write(excursions=[excursion(1)])
    write(actions=[act(the_alert(store), "resolve", "seen to")])
    write(excursions=[ended(1)])
    alert = the_alert(store)
    assert (alert.state, alert.active, changes(store)[-1]) == ("RESOLVED", False, "cleared")


def test_a_resolved_alert_is_corrected_not_reopened_while_a_newer_one_is_open(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(actions=[act(the_alert(store), "resolve", "short")])
    write(excursions=[excursion(2)])
    write(excursions=[ended(1, extreme=20.0, cause="late")])
    first, second = alerts(store)
    assert (first.state, first.extreme, changes(store, first)[-1]) == ("RESOLVED", 20.0, "corrected")
    assert (second.state, second.excursions) == ("OPEN", 1)


def test_an_alert_is_withdrawn_when_all_its_excursions_are_retracted(store: Store, write: Write) -> None:
    write(excursions=[ended(1), ended(2, extreme=12.0)])
    write(excursions=[retracted(2)])
    alert = the_alert(store)
    assert (alert.state, alert.excursions, alert.extreme, changes(store)[-1]) == ("OPEN", 1, 9.0, "corrected")
    write(excursions=[retracted(1)])
    alert = the_alert(store)
    assert (alert.state, alert.active, alert.excursions, changes(store)[-1]) == ("WITHDRAWN", False, 0, "withdrawn")
    assert kinds(store)[-2:] == ["excursion.retracted", "alert.withdrawn"]


def test_a_resolved_alert_is_withdrawn_too(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(actions=[act(the_alert(store), "resolve", "x")])
    write(excursions=[retracted(1, "custody")])
    assert the_alert(store).state == "WITHDRAWN"


def test_an_excursion_stated_again_opens_its_withdrawn_alert_again(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(excursions=[retracted(1)])
    write(excursions=[ended(1, cause="late")])
    alert = the_alert(store)
    assert (alert.state, alert.excursions, changes(store)[-1]) == ("OPEN", 1, "reopened")


def test_an_excursion_after_a_withdrawn_alert_raises_a_new_one(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(excursions=[retracted(1)])
    write(excursions=[excursion(2)])
    assert [(alert.ordinal, alert.state) for alert in alerts(store)] == [(1, "WITHDRAWN"), (2, "OPEN")]


def test_a_late_reading_that_splits_an_excursion_keeps_its_alert(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(excursions=[retracted(1), ended(2, cause="late", found_late=True), ended(3, cause="late", found_late=True)])
    alert = the_alert(store)
    assert (alert.excursions, alert.tags, changes(store)) == (2, ["T2", "T3"], ["raised", "recurred"])


def test_a_split_of_a_resolved_alerts_excursion_reopens_it_and_raises_no_second_one(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(actions=[act(the_alert(store), "resolve", "x")])
    write(excursions=[ended(1, ended_us=1_200, cause="late"), ended(2, cause="late", found_late=True)])
    alert = the_alert(store)
    assert (alert.state, alert.excursions, alert.reopened) == ("OPEN", 2, 1)


def test_an_excursion_that_moves_to_another_carrier_leaves_one_alert_and_enters_the_other(store: Store, write: Write) -> None:
    write(excursions=[ended(1), ended(2)])
    write(excursions=[ended(1, carrier="shipment/S2", cause="custody")])
    assert [(one.carrier, one.excursions, one.tags) for one in alerts(store)] == [
        ("shipment/S1", 1, ["T2"]),
        ("shipment/S2", 1, ["T1"]),
    ]


def test_an_excursion_confirmed_and_ended_in_one_commit_has_two_revisions_and_one_alert(store: Store, write: Write) -> None:
    write(excursions=[excursion(1), ended(1)])
    assert [(one.revision, one.state) for one in revisions(store, 1)] == [(1, "CONFIRMED"), (2, "ENDED")]
    assert kinds(store) == ["excursion.confirmed", "excursion.ended", "alert.raised"]
    assert not the_alert(store).active
    assert {one.alert_id for one in revisions(store, 1)} == {the_alert(store).alert_id}


def test_a_revision_that_says_nothing_new_is_left_out(store: Store, write: Write) -> None:
    write(excursions=[ended(1)])
    write(excursions=[ended(1, cause="late")])
    assert (len(revisions(store, 1)), changes(store)) == (1, ["raised"])


# ---------------------------------------------------------------- other conditions


def silence(change: str, at_us: int = 100, **more: Any) -> Condition:
    return Condition("silence|T1", "silence", change, at_us, tag_id="T1", **more)


def test_a_condition_is_raised_once_updated_and_cleared(store: Store, write: Write) -> None:
    write(conditions=[silence("raise"), silence("raise"), silence("raise", detail={"missed": 3}), silence("clear", 200)])
    alert = the_alert(store)
    assert (alert.state, alert.active, alert.started_us, alert.ended_us, alert.tags) == ("OPEN", False, 100, 200, ["T1"])
    assert changes(store) == ["raised", "updated", "cleared"]


def test_a_condition_that_comes_back_calls_people_back_or_raises_anew(store: Store, write: Write) -> None:
    write(conditions=[silence("raise"), silence("clear", 200)])
    write(actions=[act(the_alert(store), "acknowledge")])
    write(conditions=[silence("raise", 300)])
    assert (the_alert(store).state, the_alert(store).active) == ("OPEN", True)
    write(conditions=[silence("clear", 400)])
    write(actions=[act(the_alert(store), "resolve", "battery changed")])
    write(conditions=[silence("raise", 500)])
    assert [(alert.ordinal, alert.state) for alert in alerts(store)] == [(1, "RESOLVED"), (2, "OPEN")]


def test_a_tags_condition_that_comes_back_names_the_carrier_that_it_rides_on_now(store: Store, write: Write) -> None:
    write(conditions=[silence("raise", carrier="shipment/S1"), silence("clear", 200), silence("raise", 300, carrier="shipment/S2")])
    assert (the_alert(store).carrier, changes(store)) == ("shipment/S2", ["raised", "cleared", "recurred"])


def test_a_condition_resolved_while_it_goes_on_is_not_raised_again_before_it_was_over(store: Store, write: Write) -> None:
    write(conditions=[silence("raise")])
    write(actions=[act(the_alert(store), "resolve", "known")])
    write(conditions=[silence("raise")])
    assert the_alert(store).state == "RESOLVED"
    write(conditions=[silence("clear", 200), silence("raise", 300)])
    assert [alert.state for alert in alerts(store)] == ["RESOLVED", "OPEN"]


def test_a_condition_that_never_was_is_withdrawn_and_its_end_without_a_begin_is_nothing(store: Store, write: Write) -> None:
    write(conditions=[silence("clear"), silence("withdraw")])
    assert alerts(store) == []
    write(conditions=[silence("raise"), silence("withdraw")])
    assert (the_alert(store).state, the_alert(store).active) == ("WITHDRAWN", False)


def test_a_late_cause_reopens_a_resolved_condition(store: Store, write: Write) -> None:
    write(conditions=[silence("raise"), silence("clear", 200)])
    write(actions=[act(the_alert(store), "resolve", "x")])
    write(conditions=[silence("raise", 150, cause="custody")])
    assert (the_alert(store).state, changes(store)[-1]) == ("OPEN", "reopened")


# ---------------------------------------------------------------- people


def test_what_people_do_is_kept_with_who_when_and_why(store: Store, write: Write) -> None:
    write(excursions=[excursion(1)])
    alert = the_alert(store)
    for action, text in (("acknowledge", ""), ("assign", "Grace"), ("comment", "on my way"), ("resolve", "door was open")):
        result = write(actions=[act(alert, action, text)])
    (alert,) = result.alerts
    assert alert == the_alert(store)
    assert (alert.state, alert.acknowledged_by, alert.assigned_to, alert.resolved_by) == ("RESOLVED", "Ada", "Grace", "Ada")
    assert (alert.resolution, alert.acknowledged_us, alert.resolved_us, alert.etag) == ("door was open", NOW_US + 5, NOW_US + 5, 5)
    with Session(store.engine) as session:
        history = session.execute(select(AlertHistory).order_by(AlertHistory.etag)).scalars().all()  # type: ignore[arg-type]
        told = [(one.change, one.by, one.text, one.state) for one in history]
    assert told == [
        ("raised", "", "", "OPEN"),
        ("acknowledged", "Ada", "", "ACKNOWLEDGED"),
        ("assigned", "Ada", "Grace", "ACKNOWLEDGED"),
        ("commented", "Ada", "on my way", "ACKNOWLEDGED"),
        ("resolved", "Ada", "door was open", "RESOLVED"),
    ]
    assert kinds(store)[2:] == ["alert.acknowledged", "alert.assigned", "alert.commented", "alert.resolved"]


def test_a_resolved_alert_can_only_be_commented(store: Store, write: Write) -> None:
    write(excursions=[excursion(1)])
    alert = the_alert(store)
    write(actions=[act(alert, "resolve", "x")])
    for action in ("acknowledge", "assign", "resolve"):
        with pytest.raises(FailedPrecondition, match="is RESOLVED"):
            write(actions=[act(alert, action, "x")])
    write(actions=[act(alert, "comment", "x")])


def test_actions_that_are_wrong_by_themselves_are_refused(store: Store, write: Write) -> None:
    write(excursions=[excursion(1)])
    alert = the_alert(store)
    for bad in (
        act(alert, "resolve"),
        act(alert, "comment", " "),
        act(alert, "assign"),
        act(alert, "wave"),
        act(alert, "acknowledge", by=""),
    ):
        with pytest.raises(InvalidArgument):
            write(actions=[bad])
    with pytest.raises(NotFound):
        write(actions=[AlertAction("nowhere", "acknowledge", "Ada", NOW_US)])
    write(actions=[act(alert, "acknowledge")])
    with pytest.raises(FailedPrecondition, match="by Ada"):
        write(actions=[act(alert, "acknowledge")])


def test_an_action_under_a_stale_etag_is_refused(store: Store, write: Write) -> None:
    write(excursions=[excursion(1)])
    alert = the_alert(store)
    write(excursions=[excursion(2)])
    with pytest.raises(StaleEtag):
        write(actions=[act(alert, "acknowledge", etag=alert.etag)])
    write(actions=[act(alert, "acknowledge", etag=alert.etag + 1)])


# ---------------------------------------------------------------- sums


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[Stated | None, Stated]]:
    """Excursions of one alert as they begin and go on in order: (before, after) of each change."""
    changes: list[tuple[Stated | None, Stated]] = []
    open_now: dict[int, Stated] = {}
    for number in range(draw(st.integers(1, 12))):
        if open_now and draw(st.booleans()):
            old = open_now[draw(st.sampled_from(sorted(open_now)))]
            worse = (old.extreme or 0) + draw(st.integers(0, 3))
            moved = worse > (old.extreme or 0)
            new = old._replace(extreme=worse, extreme_us=(old.extreme_us or 0) + 5 * moved)
            if draw(st.booleans()):
                new = new._replace(state="ENDED", ended_us=draw(st.integers(100, 200)))
                del open_now[old.excursion_id]
            else:
                open_now[old.excursion_id] = new
            changes.append((old, new))
        else:
            start = draw(st.integers(0, 20))
            new = Stated(number, "CONFIRMED", f"T{draw(st.integers(0, 3))}", 1, "WARNING", start, None, draw(st.integers(8, 12)), start)
            open_now[number] = new
            changes.append((None, new))
    return changes


@given(lives())
def test_sums_carried_on_equal_sums_folded_anew(changes: list[tuple[Stated | None, Stated]]) -> None:
    carried, now = Facts(), dict[int, Stated]()
    for old, new in changes:
        now[new.excursion_id] = new
        if old is None:
            carried = carried.plus(new)
        else:
            assert grew_in_order(old, new, "reading")
            carried = carried.grown(old, new)
        assert carried == facts_of(now.values())


@st.composite
def stated(draw: st.DrawFn) -> list[Stated]:
    """Any excursions of one alert, some retracted, perhaps of a limit that was turned round."""
    directions = draw(st.sampled_from([(1,), (-1,), (1, -1)]))
    found = []
    for number in range(draw(st.integers(0, 12))):
        extreme = draw(st.sampled_from([None, -3.5, 0.0, 1.0, 7.5]))
        found.append(
            Stated(
                number, draw(st.sampled_from(["CONFIRMED", "ENDED", "RETRACTED"])), f"T{draw(st.integers(0, 3))}",
                draw(st.sampled_from(directions)), draw(st.sampled_from(["INFO", "WARNING", "CRITICAL"])), draw(st.integers(0, 99)),
                draw(st.none() | st.integers(0, 99)), extreme, None if extreme is None else draw(st.integers(0, 3)),
            )
        )  # fmt: skip
    return draw(st.permutations(found))


@given(stated())
def test_sums_folded_at_once_equal_adding_one_excursion_after_the_other(excursions: list[Stated]) -> None:
    added = Facts()
    for one in sorted(excursions):
        added = added.plus(one)
    assert facts_of(excursions) == added


def test_a_process_that_has_made_no_record_yet_raises_an_alert() -> None:
    """A committer that was started again may be given a silence before anything else."""
    program = """
from actors.journal.alerts import on_condition
from actors.journal.prepared import Condition
change = Condition(key="silence|A", kind="silence", change="raise", at_us=1, reason="SILENT", cause="clock")
print(on_condition(None, change, 5).alert.state)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout == "OPEN\n", run.stderr
