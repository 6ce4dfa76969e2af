"""Who may come in: the bounds that a handshake meets, and when whoever is refused may try again.

A refusal costs little and those who are inside do not notice it. It is HTTP 503 with `Retry-After`, after which stock
clients keep trying; anything else, CONNECT_ERROR above all, would keep them away for good.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import NamedTuple

from hub.engineio import client_address
from hub.engineio.core.token_bucket import TokenBucket
from hub.engineio.options import EngineOptions

# Seconds after which to come back to a server that ends, or rather to the one that takes its place.
ENDING = 2
# Seconds over which those are spread who find a server full, so that they do not come back all at once.
FULL = (2, 10)
# How many seconds' worth of newcomers an address may bring at once.
BURST = 10.0
# How often the event loop is to come round, in seconds.
BEAT = 0.1
# Addresses without a connection that are remembered at least before they are looked through.
ADDRESSES = 1024


class Refusal(NamedTuple):
    """Why somebody is not let in, in words, and how many seconds to wait."""

    why: str
    retry_after: int


class AddressUsage:
    """What is known of one address."""

    __slots__ = ("inside", "newcomers")

    def __init__(self, newcomers: TokenBucket | None) -> None:
        self.inside = 0
        self.newcomers = newcomers


class LoopLag:
    """How far the event loop is behind: a timer that is overdue says so while it waits for its turn."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def seconds(self) -> float:
        """Return for how many seconds the loop has not come round; the first call begins to watch it."""
        if self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._beat()
        assert self._loop is not None
        return max(0.0, self._loop.time() - self._due)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        assert self._loop is not None
        self._due = self._loop.time() + BEAT
        self._timer = self._loop.call_at(self._due, self._beat)


class AdmissionControl:
    """Counts who is inside. While `refusing` is set nobody else comes in."""

    def __init__(self, options: EngineOptions, counters: Counter[str]) -> None:
        self.refusing = False
        self.inside = 0
        self._options = options
        self._counters = counters
        self._lag = LoopLag()
        # By address, as `client_address.counted_as` has it.
        self._callers: dict[str, AddressUsage] = {}
        self._look_through_at = ADDRESSES

    def enter(self, remote: str) -> Refusal | None:
        """Let somebody in, who is owed a `leave`; or say why not."""
        refusal = self._full() or self._too_many(remote)
        if refusal is not None:
            self._counters[refusal.why] += 1
            return refusal
        self.inside += 1
        if not client_address.is_loopback(remote):
            self._caller(remote).inside += 1
        return None

    def leave(self, remote: str) -> None:
        self.inside -= 1
        caller = self._callers.get(client_address.counted_as(remote))
        if caller is not None and caller.inside:
            caller.inside -= 1

    def close(self) -> None:
        """Let nobody in any more."""
        self.refusing = True
        self._lag.stop()

    def _full(self) -> Refusal | None:
        options = self._options
        if self.refusing:
            return Refusal("this server is ending", ENDING)
        if options.max_connections and self.inside >= options.max_connections:
            return Refusal("this server is full", random.randint(*FULL))
        if options.max_lag and self._lag.seconds() > options.max_lag:
            return Refusal("this server is behind with its work", random.randint(*FULL))
        return None

    def _too_many(self, remote: str) -> Refusal | None:
        if client_address.is_loopback(remote):
            return None
        caller, most = self._caller(remote), self._options.connections_per_address
        if most and caller.inside >= most:
            return Refusal("too many connections from this address", random.randint(*FULL))
        if caller.newcomers is not None:
            wait = caller.newcomers.take()
            if wait:
                return Refusal(
                    "too many new connections from this address", max(ENDING, round(wait))
                )
        return None

    def _caller(self, remote: str) -> AddressUsage:
        address = client_address.counted_as(remote)
        caller = self._callers.get(address)
        if caller is None:
            if len(self._callers) >= self._look_through_at:
                self._look_through()
            rate = self._options.newcomers_per_address
            clock = asyncio.get_running_loop().time
            caller = AddressUsage(TokenBucket(clock, rate, BURST * rate) if rate else None)
            self._callers[address] = caller
        return caller

    def _look_through(self) -> None:
        """Forget whom nothing is held against. It costs each newcomer little: the next time is twice as many away."""
        self._callers = {
            address: caller
            for address, caller in self._callers.items()
            if caller.inside or (caller.newcomers is not None and not caller.newcomers.full)
        }
        self._look_through_at = max(ADDRESSES, 2 * len(self._callers))
