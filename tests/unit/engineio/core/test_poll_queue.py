"""The polling queue: order, bounds of an answer, messages that stay whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.engineio.core.poll_queue import PollQueue
from hub.engineio.core.prepared import PreparedMessage


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(0, 200))
def test_frames_stay_whole_and_in_order(sizes: list[int], most: int) -> None:
    queue = PollQueue()
    sent = []
    for number, size in enumerate(sizes):
        message = PreparedMessage(*(f"{number}.{part}" for part in range(size)))
        queue.push((message,), len(message))
        sent += ["4" + str(packet) for packet in message.packets]
    assert queue.size > 0
    answers = []
    while queue:
        answers.append(queue.take_payload(16, most))
        assert 1 <= len(answers[-1]) <= 16
    assert [packet for answer in answers for packet in answer] == sent
    assert queue.size == 0
    for number, size in enumerate(sizes):
        if size <= 16:
            holding = [a for a in answers if any(p.startswith(f"4{number}.") for p in a)]
            assert len(holding) == 1


def test_an_answer_ends_once_it_is_large() -> None:
    queue = PollQueue()
    messages = [PreparedMessage("x" * 600_000) for _ in range(3)]
    queue.push(messages, sum(map(len, messages)))
    assert [len(queue.take_payload(16, 1_000_000)) for _ in range(2)] == [2, 1]


def test_one_waiting_ping_is_enough() -> None:
    queue = PollQueue()
    queue.push_control("2")
    queue.push_control("2")
    assert queue.take_payload(16, 100) == ["2"]
