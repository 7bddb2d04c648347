"""The states of a recipient and their words."""

from pathlib import Path

import pytest

from mailq.queue.states import FINAL, TRANSITIONS, Event, ShownState, State, shown, sources, target


def test_nothing_leaves_a_final_state() -> None:
    assert [] == [event for event in Event if FINAL & set(sources(event))]


def test_every_state_but_the_first_can_be_reached() -> None:
    assert set(State) == {target(event) for event in Event}


def test_every_event_has_a_place_in_the_table_and_one_target() -> None:
    assert set(Event) == set(TRANSITIONS)
    assert [] == [event for event in Event if len(set(TRANSITIONS[event].values())) != 1]


def test_only_a_worker_touches_a_leased_recipient() -> None:
    assert {
        Event.DELIVER,
        Event.DEFER,
        Event.BOUNCE,
        Event.EXPIRE,
        Event.HAND_BACK,
        Event.SET_ASIDE,
        Event.QUARANTINE,
    } == {event for event in Event if State.LEASED in sources(event)}


@pytest.mark.parametrize(
    ("state", "attempts", "word"),
    [
        (State.QUEUED, 0, ShownState.QUEUED),
        (State.QUEUED, 1, ShownState.DEFERRED),
        (State.LEASED, 1, ShownState.ACTIVE),
        (State.HELD, 3, ShownState.HELD),
        (State.QUARANTINED, 3, ShownState.QUARANTINED),
        (State.SENT, 1, ShownState.SENT),
        (State.BOUNCED, 1, ShownState.BOUNCED),
        (State.EXPIRED, 9, ShownState.EXPIRED),
        (State.CANCELLED, 0, ShownState.CANCELLED),
    ],
)
def test_people_see_the_words_of_the_field(state: State, attempts: int, word: ShownState) -> None:
    assert word is shown(state, attempts=attempts)


def test_the_documented_table_is_the_one_in_force() -> None:
    page = Path(__file__).parents[3].joinpath("docs", "states.md").read_text(encoding="utf-8")
    rows = [
        f"| {event.value} | {', '.join(one.value for one in sources(event))} | {target(event).value} |"
        for event in TRANSITIONS
    ]
    table = "| Event | From | To |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
    assert table in page
    assert set(State) == {state for state in State if f"| `{state.value}` |" in page}
