"""The checker finds each kind of broken promise in histories made to break it, and nothing in one that keeps all."""

from __future__ import annotations

import pytest

from tests.chaos.checker import check
from tests.chaos.history import (
    Acked,
    Acking,
    Began,
    Forgotten,
    Gap,
    Got,
    History,
    Joined,
    Joining,
    Leaving,
    Left,
    Proved,
    Publication,
    Record,
)


def story(*events, returns=True, stayed=True, publications=10) -> tuple[History, Record]:
    """Messages 1 to 10 of room `a` have the offsets 101 to 110; one client has joined at 100."""
    history = History()
    for n in range(1, publications + 1):
        history.publications[f"a{n}"] = Publication("a", f"a{n}", n, n + 0.5, 100 + n)
    record = history.record("client", "raw", returns=returns)
    record.stayed = stayed
    record.events = [Began(100, False), Joining("a"), Joined("a", 100), *events]
    return history, record


def got(*numbers: int) -> list[Got]:
    return [Got("a", f"a{n}", 100 + n) for n in numbers]


def rules(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}


def test_a_story_that_keeps_every_promise_passes():
    """Received, missed, resumed, a gap with its count, a repeat where it is allowed."""
    history, _ = story(
        *got(1, 2, 3),
        Began(103, True, missed=4, resumed=True),
        Gap("a", "overflow", 103, 106, 2),
        *got(6, 7),
        Began(107, True, resumed=True),
        *got(8, 9, 10),
    )
    other = history.record("other", "stock", returns=False)
    other.stayed = True
    other.events = [
        Began(100, False), Joining("a"), Joined("a", 104), *got(5, 6, 7),
        Began(105, True, resumed=True), *got(6, 7, 8, 9, 10),
    ]  # fmt: skip
    assert check(history) == []


def test_what_was_never_received_is_lost():
    """A hole at the end, where nothing newer shows it."""
    history, _ = story(*got(1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert rules(history) == {"lost"}


def test_a_hole_is_lost_even_if_it_is_filled_late():
    """What came before a message is there, or told as lost, when that message arrives."""
    history, _ = story(*got(1, 2, 4), Gap("a", "overflow", 102, 104, 1), *got(5, 6, 7, 8, 9, 10))
    assert "lost" in rules(history)


def test_a_room_can_be_lost_behind_another_one():
    """A newer message of another room shows the hole too: one order for all rooms."""
    history, record = story(*got(1, 2))
    record.stayed = False
    history.publications["b1"] = Publication("b", "b1", 20, 21, 120)
    record.events += [Joining("b"), Joined("b", 119), Got("b", "b1", 120)]
    assert rules(history) == {"lost"}


def test_nothing_is_due_before_the_join_or_after_leaving():
    history, record = story(*got(1, 2), Leaving("a"), Left("a"))
    assert check(history) == []
    record.events[2] = Joined("a", 101)
    del record.events[3]
    assert check(history) == []


def test_nothing_older_than_the_join_arrives():
    """Whether it comes before the answer or behind it."""
    history, record = story(*got(2, 3))
    record.stayed = False
    record.events[2] = Joined("a", 101)
    assert check(history) == []
    record.events[3:3] = got(1)
    assert rules(history) == {"before the join"}
    record.events[2:4] = [*got(1), Joined("a", 101)]
    assert rules(history) == {"before the join"}


def test_a_join_that_was_not_heard_of_is_answered_how_far_the_next_connection_has_come():
    """What came over it and over the one before is older than that; nothing that comes later is."""
    history, record = story(stayed=False)
    resumed = Began(102, True, resumed=True)
    record.events[2:] = [*got(1, 2), resumed, *got(3), Joined("a", 103), *got(4)]
    assert check(history) == []
    record.events[2:] = [*got(1, 2), resumed, *got(3), Joined("a", 104), *got(4)]
    assert rules(history) == {"before the join"}
    record.events[2:] = [*got(3), Joined("a", 103), *got(4)]
    assert rules(history) == {"before the join"}


def test_what_came_before_such_an_answer_may_come_again_over_a_later_connection():
    """To a client that returns no offset; nothing that is older than the first of it."""
    history, record = story(returns=False, stayed=False)
    resumed = Began(100, True, resumed=True)
    record.events[2:] = [resumed, *got(2, 3), Joined("a", 103), resumed, *got(2, 3, 4)]
    assert check(history) == []
    record.events[2:] = [resumed, *got(2, 3), Joined("a", 103), resumed, *got(1, 2, 3, 4)]
    assert rules(history) == {"before the join"}


def test_what_was_not_acknowledged_is_not_due():
    """An unknown outcome obliges to nothing; if it was stored it arrives."""
    history, record = story(*got(*range(1, 10)))
    history.publications["a10"].offset = history.publications["a10"].acked_at = None
    assert check(history) == []
    record.events += got(10)
    assert check(history) == []


def test_a_gap_of_another_room_excuses_nothing():
    history, _ = story(*got(1, 2), Gap("b", "overflow", 102, 111, None))
    assert rules(history) == {"lost"}


def test_a_gaps_borders_are_not_in_it():
    """after < offset < before."""
    history, _ = story(*got(1, 2), Gap("a", "overflow", 103, 110, None), *got(10))
    assert rules(history) == {"lost"}


def test_a_wrong_count():
    history, _ = story(*got(1, 2), Gap("a", "overflow", 102, 110, 6), *got(10))
    assert rules(history) == {"count"}


def test_a_gap_told_of_what_had_arrived_or_arrives():
    history, _ = story(*got(1, 2), Gap("a", "overflow", 101, 110, 8), *got(10))
    assert rules(history) == {"false gap"}
    history, _ = story(*got(1, 2), Gap("a", "overflow", 102, 110, 7), *got(9, 10))
    assert rules(history) == {"false gap"}


def test_a_failover_takes_back_what_was_trimmed_behind_an_earlier_gap():
    """Redis forgot the trimming, too: a client that returns no offset gets what it was told is lost. Said by a reset."""
    events = [
        *got(1, 2), Began(102, True, resumed=True), Gap("a", "overflow", 102, 106, None), *got(6, 7),
    ]  # fmt: skip
    again = [Gap("a", "overflow", 102, 104, None), *got(4, 5, 6, 7, 8, 9, 10)]
    reset = Gap("a", "reset", 120, 130, None)

    def found(*events: object) -> set[str]:
        history, _ = story(*events, returns=False)
        return {violation.rule for violation in check(history, ["overflow", "reset"])}

    assert found(*events, Began(102, True, resumed=True), *again) == {"false gap"}
    assert found(*events, Began(102, True, resumed=True), reset, *again) == set()
    # One told before, told once more, says nothing new; nor does it excuse what the same connection was told.
    assert found(reset, *events, Began(102, True, resumed=True), reset, *again) == {"false gap"}
    assert found(*got(1, 2), events[3], reset, *got(4, 5, 6, 7, 8, 9, 10)) == {"false gap"}


def test_what_a_lost_primary_took_with_it_is_told():
    """Where those who acknowledged it live on: to whoever has not received it, and was in the room."""
    history, record = story(*got(1, 2), *got(6, 7, 8, 9, 10))
    history.forgotten.append(Forgotten(102, 105, 0.0, 99.0))

    def found() -> list[str]:
        violations = check(history, ["reset"], remembered=True)
        return [f"{violation.rule} {violation.what.split()[0]}" for violation in violations]

    assert check(history, ["reset"]) == []
    assert found() == ["untold a3", "untold a4", "untold a5"]
    record.events.insert(5, Gap("a", "reset", 102, 105, None))
    assert found() == ["untold a5"]
    record.events[2] = Joined("a", 105)
    del record.events[3:5]
    assert found() == []


def test_a_gap_for_no_good_reason():
    """Nothing expired, and Redis forgot nothing, in this story."""
    history, _ = story(*got(1, 2), Gap("a", "reset", 102, 110, None), *got(10))
    assert rules(history) == {"gap without a reason"}
    assert check(history, reasons=["reset"]) == []


def test_out_of_order():
    history, _ = story(*got(1, 3, 2, 4, 5, 6, 7, 8, 9, 10))
    assert {"order", "lost"} == rules(history)


@pytest.mark.parametrize("returns", [True, False])
def test_a_repeat_within_a_connection(returns):
    history, _ = story(*got(1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10), returns=returns)
    assert "repeat within a connection" in rules(history)


def test_a_repeat_after_a_return():
    """Allowed to those who return no offset, and to them only behind the position told."""
    events = [*got(1, 2, 3), Began(101, True, resumed=True), *got(*range(2, 11))]
    history, record = story(*events)
    assert rules(history) == {"no repeats"}
    record.returns = False
    assert check(history) == []
    record.events[6] = Began(102, True, resumed=True)
    assert rules(history) == {"repeat within a connection"}


def test_a_proven_position_comes_back():
    """Proven at 10, the connection alive until 30: what came before is not seen again."""
    history, record = story(
        *got(1, 2, 3), Proved(103, 10.0), Proved(0, 30.0),
        Began(101, True, resumed=True), *got(*range(2, 11)), returns=False,
    )  # fmt: skip
    assert rules(history) == {"written back"}
    history.outages.append((11.0, 12.0))
    assert check(history) == []
    history.outages.clear()
    record.events[7] = Proved(0, 12.0)
    assert check(history) == []


def test_two_clients_that_disagree():
    history, _ = story(*got(*range(1, 11)))
    other = history.record("other", "js", returns=True)
    other.events = [Began(100, False), Joining("a"), Got("a", "a2", 101), Got("a", "a1", 102)]
    assert {"disagree", "twice"} <= rules(history)


def test_a_key_stored_twice():
    """The same publication with two offsets, whoever saw them."""
    history, record = story(*got(*range(1, 11)))
    record.events.append(Got("a", "a10", 111))
    assert rules(history) == {"twice"}


def test_a_message_that_nobody_published():
    history, record = story(*got(*range(1, 11)))
    record.events.append(Got("a", "a11", 111))
    assert rules(history) == {"invented"}


def test_a_message_after_leaving():
    history, record = story(*got(1), Leaving("a"), *got(2), Left("a"))
    assert check(history) == []
    record.events += got(3)
    assert rules(history) == {"not subscribed"}


def test_a_session_forgotten():
    history, _ = story(*got(*range(1, 11)), Began(120, False, resumed=True))
    assert rules(history) == {"session lost"}


def test_two_that_ask_at_the_same_time_are_told_in_any_order():
    """Of connections of one name: the second was told first, and is no reason to take the session for lost."""
    began = Began(120, False, resumed=True, at=3.1, asked=1.5)
    for told_at, right in [(2.0, True), (1.0, False)]:
        history, record = story(*got(*range(1, 11)), began)
        record.events[0] = Began(100, True, at=told_at, asked=0.5)
        assert rules(history) == (set() if right else {"session lost"})


def test_an_order_against_time():
    """a2 was sent after a1 had been acknowledged, so it is newer."""
    history, _ = story(publications=2, stayed=False)
    history.publications["a2"].offset = 99
    assert rules(history) == {"real time"}


def test_data_that_has_changed_on_the_way():
    history, _ = story(*got(*range(1, 10)), Got("a", "a10", 110, whole=False))
    assert rules(history) == {"corrupt"}


def test_a_mistake_of_the_stock_python_client():
    """It may take a CONNECT reply for an attachment, as the last thing on a connection; the message comes again, or is told."""
    damaged, began = Got("a", "a5", 105, whole=False), Began(104, True, resumed=True, asked=20.0)
    told, other = Gap("a", "reset", 104, 106, None), Gap("a", "reset", 105, 107, None)
    for kind, after, right in [
        ("stock python websocket", [began, *got(*range(5, 11))], True),
        ("bare websocket", [began, *got(*range(5, 11))], False),
        ("stock python websocket", got(*range(5, 11)), False),
        ("stock python websocket", [began, *got(*range(6, 11))], False),
        ("stock python websocket", [began, told, *got(*range(6, 11))], True),
        ("stock python websocket", [began, other, *got(*range(7, 11))], False),
    ]:
        history, record = story(*got(*range(1, 5)), damaged, *after, returns=False)
        record.kind = kind
        assert ("corrupt" in rules(history)) is not right


def test_what_is_volatile_is_not_due_and_not_replayed():
    """It reaches who is there, or nobody; and counts in no gap."""
    history, record = story(*got(1, 2, 3, 4), Gap("a", "overflow", 104, 108, 2), *got(8, 9, 10))
    history.publications["a6"].volatile = True
    assert check(history) == []
    record.events += [Began(110, True, resumed=True, asked=20.0)]
    record.events.insert(7, Began(104, True, resumed=True, asked=6.4))
    record.events.insert(8, Got("a", "a6", 106))
    assert "expired" not in rules(history)
    record.events[7] = Began(104, True, resumed=True, asked=6.6)
    assert "expired" in rules(history)


def test_what_has_expired_is_not_due_and_not_replayed():
    """Acknowledged at 5.5 for a second; whoever connects at 30 does not get it."""
    history, record = story(*got(1, 2, 3, 4), Began(104, True, resumed=True, asked=30.0))
    record.events += got(6, 7, 8, 9, 10)
    assert rules(history) == {"lost"}
    history.publications["a5"].ttl = 1.0
    assert check(history) == []
    record.events[8:8] = got(5)
    assert rules(history) == {"expired"}
    record.events[7] = Began(104, True, resumed=True, asked=6.0)
    assert check(history) == []


def test_what_has_not_expired_is_due():
    history, _ = story(*got(1, 2, 3, 4, 6, 7, 8, 9, 10))
    history.publications["a5"].ttl = 600.0
    assert rules(history) == {"lost"}


def test_an_own_message_with_echo_off():
    """It is not due to its publisher, and must not come to it."""
    history, record = story(*got(1, 2, 3, 4, 6, 7, 8, 9, 10))
    history.publications["a5"].skip = "client"
    assert check(history) == []
    record.events[7:7] = got(5)
    assert rules(history) == {"echo"}


def test_only_acknowledgements_move_a_manual_position():
    """Resumed from what was acknowledged; a request whose answer was lost may count or not."""
    history, record = story(
        *got(1, 2, 3), Acking(102), Acked(102, 4.9, 5.0), *got(4, 5), Acking(104),
        Began(102, True, resumed=True), *got(3, 4, 5, 6, 7, 8, 9, 10), returns=False,
    )  # fmt: skip
    record.manual = True
    assert check(history) == []
    for position, right in [(101, False), (102, True), (104, True), (105, False)]:
        record.events[11:] = [
            Began(position, True, resumed=True),
            *got(*range(position - 99, 11)),
        ]
        assert rules(history) == (set() if right else {"only acks move"})
    record.events[11:] = [Began(101, True, resumed=True), *got(*range(2, 11))]
    # Stored with a primary that was lost, or before.
    for since, right in [(4.95, True), (5.05, False)]:
        history.forgotten = [Forgotten(900, 901, since, since + 0.02)]
        assert rules(history) == (set() if right else {"only acks move"})
    history.forgotten = [Forgotten(900, 901, 4.6, 4.7)]  # its answer was long on its way
    record.events[7] = Acked(102, 4.5, 5.0)
    assert check(history) == []


def test_whoever_has_seen_more_than_there_is_sees_again_what_was_not_proven():
    """Its offset is beyond the clock of the replica that was promoted, so nobody knows what it has."""
    history, _ = story(*got(1, 2, 3, 4), Began(102, True, resumed=True), *got(*range(3, 11)))
    assert rules(history) == {"no repeats"}
    history.forgotten.append(
        Forgotten(102, 103, 4.0, 6.0)
    )  # the last that it had was not among them
    assert rules(history) == {"no repeats"}
    history.forgotten[0] = Forgotten(103, 104, 4.0, 6.0)
    assert check(history) == []


def test_what_a_lost_primary_alone_had_is_not_due():
    """And it may be stored again, behind what is told as forgotten."""
    history, record = story(*got(1, 2, 3), *got(6, 7, 8, 9, 10))
    assert rules(history) == {"lost"}
    history.forgotten.append(Forgotten(103, 105, 4.0, 6.0))
    assert check(history) == []
    record.events.insert(6, Gap("a", "overflow", 103, 106, 5))
    assert check(history) == []
    history.publications["a4"] = Publication("a", "a4", 20.0, 20.5, 111)
    record.events += [Got("a", "a4", 111)]
    other = history.record("other", "raw", returns=True)
    other.events = [Began(100, False), Joining("a"), Joined("a", 103), Got("a", "a4", 104)]
    assert check(history) == []
    history.forgotten[0] = Forgotten(104, 105, 4.0, 6.0)
    assert "twice" in rules(history)
