"""Admission control: which handshakes are refused, and after how many seconds their clients may try again.

A refusal costs little, and the clients that are connected do not notice it. It is HTTP 503 with `Retry-After`. After
that stock clients try again; after other responses, CONNECT_ERROR above all, they would not.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import NamedTuple

from hub.engineio import client_address
from hub.engineio.core.token_bucket import TokenBucket
from hub.engineio.options import EngineOptions

# Seconds after which to try again when a server ends: another one has taken its place by then.
ENDING = 2
# Range of seconds after which to try again when a server is full; spread, so that not all clients return at once.
FULL = (2, 10)
# An address may make as many handshakes at once as its rate allows in so many seconds.
BURST = 10.0
# Seconds between two calls of the timer that measures how late the event loop is.
BEAT = 0.1
# Unused addresses are forgotten once so many addresses are known.
ADDRESSES = 1024


class Refusal(NamedTuple):
    """Why a handshake is refused, and after how many seconds to try again."""

    why: str
    retry_after: int
    # The option that is the bound; None: the server ends.
    option: str | None


class AddressUsage:
    """The connections of one address, and the rate of its handshakes (None: not limited)."""

    __slots__ = ("connections", "handshakes")

    def __init__(self, handshakes: TokenBucket | None) -> None:
        self.connections = 0
        self.handshakes = handshakes


class LoopLag:
    """Measures how late the event loop is: for how long its own timer is overdue."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def seconds(self) -> float:
        """Return how many seconds the loop is late. The first call starts the timer."""
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
    """Counts connections, and refuses handshakes above the bounds; while `refusing` is true, all of them."""

    def __init__(self, options: EngineOptions, counters: Counter[str]) -> None:
        self.refusing = False
        self.connections = 0
        self._options = options
        self._counters = counters
        self._lag = LoopLag()
        # By the key that `client_address.counted_as` returns.
        self._addresses: dict[str, AddressUsage] = {}
        # The number of addresses at which unused ones are forgotten.
        self._forget_at = ADDRESSES

    def admit(self, remote: str) -> Refusal | None:
        """Admit a handshake from an address, and return None; `release` must follow. Or return why it is refused."""
        refusal = self._refuse_server() or self._refuse_address(remote)
        if refusal is not None:
            self._counters[refusal.why] += 1
            return refusal
        self.connections += 1
        if not client_address.is_loopback(remote):
            self._usage_of(remote).connections += 1
        return None

    def release(self, remote: str) -> None:
        """Note that an admitted connection has ended."""
        self.connections -= 1
        usage = self._addresses.get(client_address.counted_as(remote))
        if usage is not None and usage.connections:
            usage.connections -= 1

    def close(self) -> None:
        """Admit no handshake any more."""
        self.refusing = True
        self._lag.stop()

    def _refuse_server(self) -> Refusal | None:
        options = self._options
        if self.refusing:
            return Refusal("this server is ending", ENDING, None)
        if options.max_connections and self.connections >= options.max_connections:
            return Refusal("this server is full", random.randint(*FULL), "max_connections")
        if options.max_lag and self._lag.seconds() > options.max_lag:
            return Refusal("this server is behind with its work", random.randint(*FULL), "max_lag")
        return None

    def _refuse_address(self, remote: str) -> Refusal | None:
        if client_address.is_loopback(remote):
            return None
        usage, most = self._usage_of(remote), self._options.connections_per_address
        if most and usage.connections >= most:
            why = "too many connections from this address"
            return Refusal(why, random.randint(*FULL), "connections_per_address")
        if usage.handshakes is not None:
            wait = usage.handshakes.take()
            if wait:
                why = "too many new connections from this address"
                return Refusal(why, max(ENDING, round(wait)), "newcomers_per_address")
        return None

    def _usage_of(self, remote: str) -> AddressUsage:
        address = client_address.counted_as(remote)
        usage = self._addresses.get(address)
        if usage is None:
            if len(self._addresses) >= self._forget_at:
                self._forget_unused()
            rate = self._options.newcomers_per_address
            clock = asyncio.get_running_loop().time
            usage = AddressUsage(TokenBucket(clock, rate, BURST * rate) if rate else None)
            self._addresses[address] = usage
        return usage

    def _forget_unused(self) -> None:
        """Forget addresses without connections and recent handshakes.

        The next time is when twice as many are known as are kept now, so the cost for each new address is small.
        """
        self._addresses = {
            address: usage
            for address, usage in self._addresses.items()
            if usage.connections or (usage.handshakes is not None and not usage.handshakes.full)
        }
        self._forget_at = max(ADDRESSES, 2 * len(self._addresses))
