"""Builds the load generator, and talks to it: a command a line, an answer of JSON each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.places import BUILD, HERE, LOAD_CORE

PROGRAM = BUILD / "load"


def compile_c(program: str, sources: Sequence[str]) -> None:
    """Compile a C program of `bench/` into the build directory where its sources are newer."""
    target = BUILD / program
    paths = [path for pattern in sources for path in HERE.glob(pattern)]
    if target.exists() and all(path.stat().st_mtime < target.stat().st_mtime for path in paths):
        return
    BUILD.mkdir(exist_ok=True)
    code = [str(path) for path in paths if path.suffix == ".c"]
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(target), *code], check=True)


def build() -> None:
    compile_c("load", ["load/*.c", "load/*.h"])
    compile_c("sender", ["peers/sender.c"])


class Load:
    """A load generator that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, command: str, **arguments: float) -> dict[str, Any]:
        """Carry out one command of `bench/load/main.c` and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = (f"{name}={value:.12g}" for name, value in arguments.items())
        print(command, *words, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the load generator ended at {command!r}")
        return json.loads(answer)


@contextmanager
def loading(port: int, pids: Sequence[int]) -> Iterator[Load]:
    """Run a load generator on its own core; it counts the CPU time of the processes `pids`."""
    process = subprocess.Popen(
        ["taskset", "-c", str(LOAD_CORE), str(PROGRAM), str(port), *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Load(process)
    finally:
        process.kill()
        process.wait()
