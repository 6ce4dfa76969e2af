"""How many files the process may have open, and so how many connections: each connection is a file."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("hub.runtime")

# A higher limit is of no use. On some systems it is a thousand million, which makes starting a process slow.
MAX_FILES = 1 << 20
# For other files than admitted connections: Redis, the listening sockets, files of the page, and connections that are
# only to be refused.
RESERVED_FILES = 200


def raise_file_limit() -> int:
    """Raise the limit on open files as far as this process may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= highest:
        return MAX_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    except (OSError, ValueError):  # some systems have a lower limit that they do not report
        return soft
    return highest


def allowed_connections(wanted: int) -> int:
    """Return how many connections to allow: `wanted` (0: any number), but not more than there are files for.

    Raises the limit on open files first.
    """
    files = raise_file_limit()
    possible = max(1, files - RESERVED_FILES)
    if wanted > possible:
        log.warning(
            "HUB_MAX_CONNECTIONS is %d, but only %d connections are possible, because %d files may be open: raise that "
            "limit (ulimit -n)",
            wanted,
            possible,
            files,
        )
    return min(wanted or possible, possible)
