"""How many files the process may have open: each connection is one."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("hub.runtime")

# More than anybody needs; some systems allow a thousand million, which makes starting a process slow.
MOST = 1 << 20
# Not for connections: Redis, the listening socket, files of the page, and HTTP requests that are only to be refused.
RESERVE = 200


def raise_limit() -> int:
    """Raise the limit as far as this process may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # some systems have a lower limit that they do not tell
        return soft
    return wanted


def connections(wanted: int) -> int:
    """Return how many connections to allow: `wanted` (0: any number), but not more than there are files for."""
    files = raise_limit()
    possible = max(1, files - RESERVE)
    if wanted > possible:
        log.warning(
            "max_connections %d: only %d, as at most %d files may be open", wanted, possible, files
        )
    return min(wanted or possible, possible)
