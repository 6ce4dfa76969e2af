"""The embedded server, with the real one: it answers, keeps its data, and ends with its hub."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest

from hub.embedded import data_dir
from hub.embedded import server as embedded
from hub.embedded.data_dir import MAX_SOCKET_PATH, DataDir
from hub.embedded.server import EmbeddedServer, EmbeddedServerError
from hub.errors import HubError
from hub.settings import Settings
from hub.tasks import BackgroundTasks
from tests.support.times import MS, UNIT

PATIENCE = 20 * UNIT

# A hub for the tests to kill: starts a server on argv[1], says where, and stays.
HUB = """
import asyncio, sys
from hub.runtime import logs
from hub.embedded.server import EmbeddedServer
from hub.settings import Settings

async def main():
    server = EmbeddedServer(Settings(data_dir=sys.argv[1]))
    await server.start()
    print(server.process_id, server.url, flush=True)
    await asyncio.Event().wait()

logs.setup("info")
if sys.argv[2] == "watchdog":
    import hub.embedded.server
    hub.embedded.server.KERNEL_WATCHES = False
    hub.embedded.server._LAUNCHER = hub.embedded.server._LAUNCHER.replace("PR_SET_PDEATHSIG, signal.SIGTERM", "PR_SET_PDEATHSIG, 0")
if sys.argv[2] == "nobody":
    hub_embedded = __import__("hub.embedded.server").embedded.server
    hub_embedded._LAUNCHER = hub_embedded._LAUNCHER.replace("PR_SET_PDEATHSIG, signal.SIGTERM", "PR_SET_PDEATHSIG, 0")
if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.fixture
def where() -> Iterator[Path]:
    """A data directory to be; its path is short, as a socket will be in it."""
    base = Path(tempfile.mkdtemp(prefix="t-"))
    yield base / "data"
    shutil.rmtree(base)


@asynccontextmanager
async def running(where: Path, **given: str) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(Settings(data_dir=str(where), **given))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def path_of(url: str) -> str:
    assert url.startswith("unix://")
    return unquote(url.removeprefix("unix://"))


def ask(url: str, *words: str) -> bytes:
    """Send one command and return the whole answer; these are all shorter than one read."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path_of(url))
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words]
        connection.sendall(b"".join(parts))
        return connection.recv(1 << 16)


def config(url: str, name: str) -> str:
    return ask(url, "CONFIG", "GET", name).split(b"\r\n")[-2].decode()


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(10 * MS)


async def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        await asyncio.sleep(10 * MS)


class Child:
    """A hub in a process of its own."""

    def __init__(self, where: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HUB, str(where), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        server, self.url = line.split()
        self.server = int(server)

    def kill(self) -> str:
        """End it without a chance to clean up; return what it logged."""
        self.process.kill()
        return self.process.communicate()[1]


@pytest.fixture
def children(where: Path) -> Iterator[Callable[[str], Child]]:
    started: list[Child] = []

    def start(kind: str) -> Child:
        started.append(Child(where, kind))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        if alive(child.server):
            os.kill(child.server, signal.SIGKILL)
        wait_until(lambda child=child: not alive(child.server), "the server's end")


# --------------------------------------------------------------------------- how it runs


async def test_it_answers_on_a_socket_for_its_owner_alone(where):
    async with running(where) as server:
        assert ask(server.url, "PING") == b"+PONG\r\n"
        path = Path(path_of(server.url))
        assert path == where / "redis.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE(where.stat().st_mode) == 0o700
        assert config(server.url, "port") == "0"


async def test_it_runs_as_the_design_asks(where):
    async with running(where) as server:
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "aof-load-truncated": "yes",
        }.items():
            assert config(server.url, name) == value, name


async def test_it_allocates_by_mimalloc(where):
    """The C library's allocator takes half of the time of a push into thousands of inboxes."""
    async with running(where) as server:
        assert "libmimalloc.so" in Path(f"/proc/{server.process_id}/maps").read_text()


async def test_it_allocates_by_what_the_operator_preloads(where, monkeypatch):
    """What is set in the environment stays; empty: the C library's allocator."""
    monkeypatch.setenv("LD_PRELOAD", "")
    async with running(where) as server:
        assert "libmimalloc.so" not in Path(f"/proc/{server.process_id}/maps").read_text()


async def test_fsync_can_be_always(where):
    async with running(where, fsync="always") as server:
        assert config(server.url, "appendfsync") == "always"


async def test_stopping_ends_it_and_leaves_no_socket(where):
    async with running(where) as server:
        process = server.process_id
        assert process is not None
        assert alive(process)
    assert not alive(process)
    assert server.process_id is None
    assert not (where / "redis.sock").exists()
    await server.stop()  # a second time changes nothing


async def test_its_data_is_there_after_a_restart(where):
    async with running(where) as server:
        ask(server.url, "SET", "key", "value")
    async with running(where) as server:
        assert ask(server.url, "GET", "key") == b"$5\r\nvalue\r\n"


async def test_a_directory_with_blanks_and_signs(where):
    async with running(where / "my \"data\" é?#%41 'x'") as server:
        assert ask(server.url, "PING") == b"+PONG\r\n"
        assert Path(path_of(server.url)).is_socket()


async def test_a_relative_directory(where, monkeypatch):
    where.mkdir()
    monkeypatch.chdir(where)
    async with running(Path("here")) as server:
        assert path_of(server.url) == str(where / "here/redis.sock")


# ------------------------------------------------------------------- when the server dies


async def test_a_server_that_dies_is_restarted_with_its_data(where):
    async with running(where) as server:
        url = server.url
        for round_ in range(2):
            ask(url, "SET", f"key{round_}", "kept")
            before = server.process_id
            assert before is not None
            os.kill(before, signal.SIGKILL)
            await eventually(
                lambda before=before: server.process_id not in (None, before), "another server"
            )
            await eventually(lambda: answers(url), "its answer")
            assert ask(url, "GET", f"key{round_}") == b"$4\r\nkept\r\n"


def answers(url: str) -> bool:
    try:
        return ask(url, "PING") == b"+PONG\r\n"
    except OSError:
        return False


async def test_a_server_that_ends_by_a_signal_without_a_name_is_restarted(where, caplog):
    """Python knows no name for most of the real-time signals."""
    async with running(where) as server:
        before = server.process_id
        assert before is not None
        os.kill(before, signal.SIGRTMIN + 1)
        await eventually(lambda: server.process_id not in (None, before), "another server")
        await eventually(lambda: answers(server.url), "its answer")
    (ended,) = (r for r in caplog.records if "the embedded server ended" in r.message)
    assert ended.exit == f"signal {signal.SIGRTMIN + 1}"


async def test_a_watcher_that_fails_is_reported(where, caplog):
    """To the tasks that it is a vital one of: they end the hub."""
    tasks = BackgroundTasks()
    server = EmbeddedServer(Settings(data_dir=str(where)), tasks)

    async def fail(_: float) -> float:
        raise ZeroDivisionError

    server._restart = fail
    await server.start()
    try:
        assert server.process_id is not None
        os.kill(server.process_id, signal.SIGKILL)
        await asyncio.wait_for(tasks.wait_failed(), PATIENCE)
        assert isinstance(tasks.failure, ZeroDivisionError)
        assert "the hub ends" in caplog.text
    finally:
        await server.stop()


async def test_restarts_are_logged_without_a_flood(where, caplog, monkeypatch):
    """A server that cannot start is tried again and again, with growing pauses, and then runs."""
    async with running(where) as server:
        binary = embedded._server_binary
        attempts = []

        def none() -> Path:
            attempts.append(time.monotonic())
            return Path("/bin/false")

        monkeypatch.setattr(embedded, "_server_binary", none)
        process = server.process_id
        assert process is not None
        os.kill(process, signal.SIGKILL)
        await eventually(lambda: len(attempts) == 4, "four attempts")
        monkeypatch.setattr(embedded, "_server_binary", binary)
        pauses = [b - a for a, b in pairwise(attempts)]
        assert pauses == sorted(pauses)
        assert pauses[0] >= 2 * embedded.BACKOFF_MIN
        await eventually(lambda: "the embedded server is back" in caplog.text, "its return")
        assert answers(server.url)
    said = [record.message for record in caplog.records]
    assert said.count("the embedded server ended; restarting it") == 1
    assert said.count("the embedded server does not start; trying again") == 4


async def test_a_truncated_file_is_loaded_up_to_the_cut(where):
    async with running(where) as server:
        for n in range(100):
            ask(server.url, "SET", f"key{n}", "value")
    (file,) = (where / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 7)
    async with running(where) as server:
        assert ask(server.url, "DBSIZE") == b":99\r\n"
        assert ask(server.url, "SET", "more", "x") == b"+OK\r\n"


async def test_a_file_that_cannot_be_read_is_told_in_a_sentence(where):
    async with running(where) as server:
        ask(server.url, "SET", "key", "value")
    (file,) = (where / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(b"nonsense\r\n" * 100)
    with pytest.raises(EmbeddedServerError, match=r"ended at its start \(status 1\); its log, "):
        await EmbeddedServer(Settings(data_dir=str(where))).start()
    assert DataDir(str(where)).server_group() is None


async def test_it_waits_while_the_server_loads(where, caplog):
    """-LOADING is no answer: `start` returns when all the data is there."""
    async with running(where) as server:
        script = "for i = 1, 300000 do redis.call('SET', 'key' .. i, 'x') end return 1"
        assert ask(server.url, "EVAL", script, "0") == b":1\r\n"
    caplog.set_level("INFO", "hub")
    async with running(where) as server:
        assert ask(server.url, "DBSIZE") == b":300000\r\n"
    assert "the embedded server is loading its data" in caplog.text


# ---------------------------------------------------------------------- when the hub dies


@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "watchdog"])
def test_the_server_ends_when_its_hub_is_killed(children, kind):
    """Told by the kernel under either event loop, and by the shell where no kernel tells."""
    child = children(kind)
    ask(child.url, "SET", "key", "kept")
    child.kill()
    wait_until(lambda: not alive(child.server), "the server's end")


@pytest.mark.parametrize("kind", ["asyncio", "nobody"])
async def test_a_hub_restarted_at_once_finds_the_data(children, where, kind):
    """Also where nobody told the old server to end: the new hub does, before it starts its own."""
    child = children(kind)
    ask(child.url, "SET", "key", "kept")
    child.kill()
    async with running(where) as server:
        assert not alive(child.server)
        assert ask(server.url, "GET", "key") == b"$4\r\nkept\r\n"


async def test_a_server_left_behind_that_does_not_listen_is_killed(
    children, where, monkeypatch, caplog
):
    monkeypatch.setattr(embedded, "STOP_TIMEOUT", 200 * MS)
    child = children("nobody")
    ask(child.url, "SET", "key", "kept")
    os.kill(child.server, signal.SIGSTOP)
    child.kill()
    async with running(where) as server:
        assert not alive(child.server)
        assert ask(server.url, "GET", "key") == b"$4\r\nkept\r\n"
    assert "ending a server that was left behind" in caplog.text


async def test_a_process_with_a_reused_number_is_left_alone(where):
    """What the lock file says counts only as long as somebody holds the lock."""
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        where.mkdir()
        (where / "redis.lock").write_text(f"{bystander.pid}\n")
        async with running(where):
            assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_child_that_outlives_the_server_is_ended(where):
    """A rewrite of the append-only file under way when the server is killed, say."""
    async with running(where) as server:
        script = "for i = 1, 200000 do redis.call('SET', 'key' .. i, string.rep('x', 50)) end"
        ask(server.url, "EVAL", script, "0")
        # Microseconds per key saved: the child is there for as long as the test lives.
        assert ask(server.url, "CONFIG", "SET", "rdb-key-save-delay", "1000") == b"+OK\r\n"
        ask(server.url, "BGREWRITEAOF")
        process = server.process_id
        assert process is not None
        members = Path(f"/proc/{process}/task/{process}/children")
        await eventually(lambda: bool(members.read_text().strip()), "the child")
        child = int(members.read_text().split()[0])
        os.kill(process, signal.SIGKILL)
        await eventually(lambda: server.process_id not in (None, process), "another server")
        assert not alive(child)
        await eventually(lambda: answers(server.url), "its answer")


# --------------------------------------------------------------------- the data directory


async def test_a_second_hub_on_the_directory_is_refused(where):
    async with running(where) as server:
        with pytest.raises(EmbeddedServerError) as refused:
            await EmbeddedServer(Settings(data_dir=str(where))).start()
        assert isinstance(refused.value, HubError)
        assert refused.value.message == (
            f"Another hub (process {os.getpid()}) is using the data directory {where}; give this "
            "one its own with --data-dir, or both the same Redis with --redis-url."
        )
        assert ask(server.url, "PING") == b"+PONG\r\n", "the first one is not disturbed"
    async with running(where):
        pass


async def test_a_directory_that_cannot_be_used_is_told_in_a_sentence(where):
    where.write_text("a file")
    with pytest.raises(EmbeddedServerError, match=r"cannot be used: File exists\.$"):
        await EmbeddedServer(Settings(data_dir=str(where))).start()


async def test_a_path_too_long_for_a_socket(where):
    """The socket then lies in a private directory, which goes with the server."""
    deep = where / ("d" * MAX_SOCKET_PATH)
    async with running(deep) as server:
        assert ask(server.url, "PING") == b"+PONG\r\n"
        path = Path(path_of(server.url))
        assert not path.is_relative_to(where)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (deep / "redis.sock").readlink() == path
    assert not path.parent.exists()
    assert not (deep / "redis.sock").is_symlink()


def test_the_longest_path_that_a_socket_can_have(where):
    """The bound is the system's: one byte more and the socket moves out."""
    room = MAX_SOCKET_PATH - len(os.fsencode(where / "redis.sock")) - 1
    for extra, inside in ((0, True), (1, False)):
        directory = where / ("d" * (room + extra))
        data = DataDir(str(directory))
        data.lock()
        try:
            assert (data.socket.parent == directory) is inside
        finally:
            data.unlock()


def test_a_socket_directory_left_by_a_killed_hub_is_removed(where):
    deep = where / ("d" * MAX_SOCKET_PATH)
    first = DataDir(str(deep))
    first.lock()
    left = first.socket.parent
    assert first._lock_file is not None
    first._lock_file.close()  # as the kernel does for a killed process
    second = DataDir(str(deep))
    second.lock()
    assert not left.exists()
    second.unlock()


def test_no_directory_short_enough(where, monkeypatch):
    base = where / ("t" * MAX_SOCKET_PATH)
    base.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    data = DataDir(str(where / ("d" * MAX_SOCKET_PATH)))
    with pytest.raises(EmbeddedServerError, match="choose a shorter --data-dir"):
        data.lock()
    data.unlock()
    assert list(base.iterdir()) == []


def test_the_servers_log_is_bounded(where, monkeypatch):
    monkeypatch.setattr(data_dir, "MAX_LOG", 100)
    data = DataDir(str(where))
    data.lock()
    for _ in range(3):
        data.log.write_text("x" * 101)
        data.rotate_log()
        assert not data.log.exists()
    assert sorted(p.name for p in where.glob("redis.log*")) == ["redis.log.1"]
    data.unlock()


async def test_a_platform_without_a_server_is_told_what_to_do(where, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    with pytest.raises(EmbeddedServerError, match="name a Redis with --redis-url"):
        await EmbeddedServer(Settings(data_dir=str(where))).start()
    data = DataDir(str(where))
    data.lock()  # it was unlocked
    data.unlock()
