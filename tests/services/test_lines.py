"""A door's readings go over the line of a shard on its own machine; nothing hangs when the shard dies; other users are not listened to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from actors.line import REQUEST, Line
from actors.rules.errors import StorageFull, Unavailable
from services import lines
from services.lines import Lines

HERE = "node-1"


class Shard:
    """One end in this process; `asked` are the requests that it has not answered."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int, Callable[[Any], None]]] = []
        self.at_once = True
        self.came = threading.Semaphore(0)
        self.line = Line(self.take)

    def take(self, packed: bytes, received_us: int, answer: Callable[[Any], None]) -> None:
        if self.at_once:
            answer((packed, received_us))
        else:
            self.asked.append((packed, received_us, answer))
        self.came.release()


class Directory:
    """Where shards are, and what was asked of them as calls of Ray."""

    def __init__(self, address: str | None, node: str = HERE) -> None:
        self.shards = 1
        self.facts = {"node": node, "line": address}
        self.calls: list[str] = []
        self.forgotten = 0

    async def call(self, shard: int, method: str, *arguments: Any) -> Any:
        self.calls.append(method)
        return self.facts if method == "info" else "by Ray"

    def forget(self, shard: int) -> None:
        self.forgotten += 1


@pytest.fixture
def shard() -> Iterator[Shard]:
    one = Shard()
    yield one
    one.line.close()


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_node_id(self) -> str:
            return HERE

    monkeypatch.setattr(lines.ray, "get_runtime_context", Context)


def run(work: Callable[[Lines], Awaitable[None]], directory: Directory) -> None:
    async def whole() -> None:
        await work(Lines(directory))  # type: ignore[arg-type]

    asyncio.run(asyncio.wait_for(whole(), 60))


def test_readings_take_the_line_and_everything_else_is_a_call_of_ray(shard: Shard) -> None:
    directory = Directory(shard.line.address)

    async def work(doors: Lines) -> None:
        assert await doors.call(0, "ingest", b"readings", 5) == (b"readings", 5)
        assert await doors.call(0, "ingest", b"more", 6) == (b"more", 6)
        assert await doors.call(0, "query", "tag.twin", {}) == "by Ray"

    run(work, directory)
    assert directory.calls == ["info", "query"]


@pytest.mark.parametrize("facts", [{"node": "node-2", "line": "\0nowhere"}, {"node": HERE, "line": None}])
def test_a_shard_of_another_machine_or_without_a_line_is_called_by_ray(facts: dict[str, Any]) -> None:
    directory = Directory(None)
    directory.facts = facts

    async def work(doors: Lines) -> None:
        assert await doors.call(0, "ingest", b"readings", 5) == "by Ray"
        assert await doors.call(0, "ingest", b"readings", 5) == "by Ray"
        doors.forget(0)  # it may have moved here
        assert await doors.call(0, "ingest", b"readings", 5) == "by Ray"

    run(work, directory)
    assert directory.calls == ["info", "ingest", "ingest", "info", "ingest"]


def test_a_shard_called_by_ray_is_found_on_its_line_when_it_has_come_here(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "FAR_S", 0.1)
    directory = Directory(None, "node-2")

    async def work(doors: Lines) -> None:
        assert await doors.call(0, "ingest", b"readings", 5) == "by Ray"
        directory.facts = {"node": HERE, "line": shard.line.address}
        await asyncio.sleep(0.11)
        assert await doors.call(0, "ingest", b"readings", 5) == (b"readings", 5)

    run(work, directory)


def test_answers_come_in_any_order_each_to_its_own_request_however_long_they_are(shard: Shard) -> None:
    shard.at_once = False
    given = [os.urandom(size) for size in (1, 300_000, 10, 5_000_000, 0)]

    async def work(doors: Lines) -> None:
        answers = [asyncio.ensure_future(doors.call(0, "ingest", one, number)) for number, one in enumerate(given)]
        for _ in given:
            await asyncio.to_thread(shard.came.acquire)
        assert [packed for packed, _, _ in shard.asked] == given, "they are taken in their order"
        for packed, number, answer in reversed(shard.asked):
            answer((number, packed))
        assert await asyncio.gather(*answers) == list(enumerate(given))

    run(work, Directory(shard.line.address))


def test_what_the_shard_raises_is_raised_at_the_door(shard: Shard) -> None:
    shard.at_once = False

    async def work(doors: Lines) -> None:
        refused, odd = (asyncio.ensure_future(doors.call(0, "ingest", b"", 0)) for _ in range(2))
        for _ in range(2):
            await asyncio.to_thread(shard.came.acquire)
        shard.asked[0][2](StorageFull("the disk is full"))
        shard.asked[1][2](lambda: "what cannot be pickled")
        with pytest.raises(StorageFull, match="the disk is full"):
            await refused
        with pytest.raises(RuntimeError, match="cannot be sent"):
            await odd

    run(work, Directory(shard.line.address))


class Unreadable(Exception):
    """As some exceptions with two arguments: it can be pickled and not be read."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def test_an_answer_that_cannot_be_read_is_told_and_the_line_goes_on(shard: Shard) -> None:
    shard.at_once = False

    async def work(doors: Lines) -> None:
        bad, good = (asyncio.ensure_future(doors.call(0, "ingest", b"", 0)) for _ in range(2))
        for _ in range(2):
            await asyncio.to_thread(shard.came.acquire)
        shard.asked[0][2](Unreadable("a", "b"))
        shard.asked[1][2]("fine")
        with pytest.raises(RuntimeError, match="cannot be read"):
            await bad
        assert await good == "fine"

    run(work, Directory(shard.line.address))


def test_a_line_whose_thread_breaks_hangs_up_so_that_the_door_comes_again(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(doors: Lines) -> None:
        assert await doors.call(0, "ingest", b"1", 0) == (b"1", 0)
        with monkeypatch.context() as broken:
            broken.setattr(shard.line, "_take", lambda *_: (_ for _ in ()).throw(MemoryError()).__next__())
            with pytest.raises(Unavailable):
                await doors.call(0, "ingest", b"2", 0)
        assert await doors.call(0, "ingest", b"3", 0) == (b"3", 0)

    run(work, Directory(shard.line.address))


def test_a_shard_that_was_out_of_descriptors_accepts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, out_of = socket.socket.accept, [True, True]

    def accept(listener: socket.socket) -> Any:
        if out_of:
            out_of.pop()
            raise OSError(errno.EMFILE, "too many open files")
        return genuine(listener)

    monkeypatch.setattr(socket.socket, "accept", accept)
    one = Shard()

    async def work(doors: Lines) -> None:
        assert await doors.call(0, "ingest", b"1", 0) == (b"1", 0)

    run(work, Directory(one.line.address))
    one.line.close()


def test_a_client_that_cannot_be_served_is_hung_up_on_at_once(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, out_of = socket.socket.dup, [True]

    def dup(one: socket.socket) -> Any:
        if out_of:
            out_of.pop()
            raise OSError(errno.EMFILE, "too many open files")
        return genuine(one)

    monkeypatch.setattr(socket.socket, "dup", dup)

    async def work(doors: Lines) -> None:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(doors.call(0, "ingest", b"1", 0), 20)
        assert await doors.call(0, "ingest", b"2", 0) == (b"2", 0)

    run(work, Directory(shard.line.address))


def test_a_frozen_shard_that_ray_knows_elsewhere_keeps_nobody_waiting(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SILENT_S", 0.1)
    shard.at_once = False
    directory, successor = Directory(shard.line.address), Shard()

    async def work(doors: Lines) -> None:
        waiting = asyncio.ensure_future(doors.call(0, "ingest", b"frozen", 0))
        await asyncio.sleep(0.5)
        assert not waiting.done(), "Ray says that it is there: it may be slow"
        directory.facts["line"] = successor.line.address
        with pytest.raises(Unavailable):
            await waiting
        assert await doors.call(0, "ingest", b"again", 0) == (b"again", 0)

    run(work, directory)
    successor.line.close()


def test_an_answer_that_nobody_waits_for_any_more_is_let_go(shard: Shard) -> None:
    shard.at_once = False

    async def work(doors: Lines) -> None:
        late, other = (asyncio.ensure_future(doors.call(0, "ingest", b"", number)) for number in range(2))
        for _ in range(2):
            await asyncio.to_thread(shard.came.acquire)
        late.cancel()
        await asyncio.sleep(0)
        for _, number, answer in shard.asked:
            answer(number)
        assert await other == 1

    run(work, Directory(shard.line.address))


OTHER_SHARD = textwrap.dedent(
    """
    import sys, threading
    from actors.line import Line
    line = Line(lambda packed, received_us, answer: answer(packed) if packed == b"answer" else print("asked", flush=True))
    print(line.address[1:], flush=True)
    sys.stdin.read()
    """
)


def test_a_shard_that_dies_leaves_nobody_waiting_and_its_successor_is_found() -> None:
    first, second = (
        subprocess.Popen([sys.executable, "-c", OTHER_SHARD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    try:
        assert first.stdout is not None
        assert second.stdout is not None
        directory = Directory("\0" + first.stdout.readline().strip())
        successor = "\0" + second.stdout.readline().strip()

        async def work(doors: Lines) -> None:
            assert await doors.call(0, "ingest", b"answer", 0) == b"answer"
            waiting = asyncio.ensure_future(doors.call(0, "ingest", b"wait", 0))
            await asyncio.to_thread(first.stdout.readline)  # type: ignore[union-attr]
            first.send_signal(signal.SIGKILL)
            with pytest.raises(Unavailable):
                await waiting
            await asyncio.to_thread(first.wait)  # it hangs up before it stops listening; in between one is told Unavailable
            assert await doors.call(0, "ingest", b"answer", 0) == "by Ray", "which would say that there is no successor yet"
            directory.facts["line"] = successor
            doors.forget(0)
            assert await doors.call(0, "ingest", b"answer", 0) == b"answer"

        run(work, directory)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_client_that_does_not_read_its_answers_holds_up_nobody_else(shard: Shard) -> None:
    async def work(doors: Lines) -> None:
        other = Lines(Directory(shard.line.address))  # type: ignore[arg-type]
        silent = asyncio.ensure_future(other.call(0, "ingest", b"", 0))
        await silent
        end = other._ways[0]
        assert end is not None
        assert end._transport is not None
        end._transport.pause_reading()
        unread = [asyncio.ensure_future(other.call(0, "ingest", bytes(2_000_000), 0)) for _ in range(4)]
        await asyncio.sleep(0)
        assert await doors.call(0, "ingest", b"mine", 1) == (b"mine", 1)
        end._transport.resume_reading()
        await asyncio.gather(*unread)

    run(work, Directory(shard.line.address))


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is at the other end belongs to another user than we."""
    user = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: user)


@pytest.mark.usefixtures("stranger")
def test_a_shard_does_not_listen_to_a_process_of_another_user(shard: Shard) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(30)
        end.connect(shard.line.address)
        with contextlib.suppress(ConnectionError):  # it has hung up
            end.sendall(REQUEST.pack(0, 1, 2))
            assert end.recv(1) == b""
    assert not shard.came.acquire(blocking=False)


@pytest.mark.usefixtures("stranger")
def test_a_door_tells_nothing_to_a_process_of_another_user() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0waybill-test-" + os.urandom(8).hex())
        listener.listen()

        async def work(doors: Lines) -> None:
            assert await doors.call(0, "ingest", b"secret", 0) == "by Ray"

        run(work, Directory(listener.getsockname().decode()))
        client, _ = listener.accept()
        with client:
            client.settimeout(30)
            assert client.recv(1) == b""
