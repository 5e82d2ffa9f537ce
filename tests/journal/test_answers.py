"""Answers go out in their order from whatever thread gives them, and an end that does not read them holds up nobody."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from actors.journal.answers import Answers


def packed(number: int, answer: bytes) -> bytes:
    return number.to_bytes(4) + answer


@pytest.fixture
def ends() -> Iterator[tuple[Answers, socket.socket]]:
    ours, theirs = socket.socketpair()
    answers = Answers(ours, packed)
    with theirs:
        theirs.settimeout(30)
        yield answers, theirs
        answers.close()


def read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = end.recv(size - len(data))
        assert piece, "hung up"
        data += piece
    return data


def test_what_the_other_end_takes_goes_out_at_once_without_a_thread(ends: tuple[Answers, socket.socket]) -> None:
    answers, theirs = ends
    threads = threading.active_count()
    for number in range(100):
        answers.put(number, b"fine")
    assert threading.active_count() == threads
    assert read(theirs, 800) == b"".join(packed(number, b"fine") for number in range(100))


def test_an_end_that_does_not_read_holds_up_nobody_and_gets_all_in_order_when_it_reads(ends: tuple[Answers, socket.socket]) -> None:
    answers, theirs = ends
    given = [bytes([number]) * 200_000 for number in range(50)]
    began = time.monotonic()
    for number, one in enumerate(given):
        answers.put(number, one)
    assert time.monotonic() - began < 5
    whole = b"".join(packed(number, one) for number, one in enumerate(given))
    assert read(theirs, len(whole)) == whole
    answers.put(7, b"later")
    assert read(theirs, 9) == packed(7, b"later")


def test_answers_of_many_threads_are_each_whole(ends: tuple[Answers, socket.socket]) -> None:
    answers, theirs = ends

    def give(thread: int) -> None:
        for _ in range(200):
            answers.put(thread, bytes([thread]) * 2_000)

    threads = [threading.Thread(target=give, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for _ in range(800):
        number = int.from_bytes(read(theirs, 4))
        assert read(theirs, 2_000) == bytes([number]) * 2_000
    for one in threads:
        one.join()


def test_closing_hangs_up_while_an_answer_waits_to_be_read_and_what_comes_later_is_let_go(ends: tuple[Answers, socket.socket]) -> None:
    answers, theirs = ends
    answers.put(1, bytes(5_000_000))
    answers.close()
    answers.put(2, b"nobody wants it")
    while theirs.recv(1 << 20):
        pass


def test_an_end_that_has_gone_is_no_error_of_whoever_answers(ends: tuple[Answers, socket.socket]) -> None:
    answers, theirs = ends
    theirs.close()
    for _ in range(3):
        answers.put(1, b"nobody")


def test_what_cannot_be_packed_ends_the_connection_and_not_the_thread_that_answers() -> None:
    ours, theirs = socket.socketpair()
    answers = Answers(ours, lambda number, answer: 1 // 0)  # type: ignore[arg-type]
    answers.put(1, b"")
    with theirs:
        assert theirs.recv(1) == b""
