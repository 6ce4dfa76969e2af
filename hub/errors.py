"""The hub's one tree of errors, and how each is told to a client.

HubError
├── BadRequest      a field is missing, of the wrong type, or out of bounds
├── Unauthorized    who are you?
├── Forbidden       not for you
├── NotFound        there is no such thing
├── TooLarge        over a stated size
├── RateLimited     too many, too fast
├── Unavailable     Redis is away or slow; the outcome is unknown
└── Internal        a fault of the hub's own
"""

from __future__ import annotations

from typing import Any


class HubError(Exception):
    """An error that a client may see.

    `code` is one of PROTOCOL §4's; `retryable` says whether the same request may succeed later.
    """

    code = "internal"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def answer(self) -> dict[str, Any]:
        """Return the answer to a verb that failed (PROTOCOL §4)."""
        return {
            "ok": False,
            "error": {"code": self.code, "message": self.message, "retryable": self.retryable},
        }


class BadRequest(HubError):
    code = "bad_request"


class Unauthorized(HubError):
    code = "unauthorized"


class Forbidden(HubError):
    code = "forbidden"


class NotFound(HubError):
    code = "not_found"


class TooLarge(HubError):
    code = "too_large"


class RateLimited(HubError):
    code = "rate_limited"
    retryable = True


class Unavailable(HubError):
    code = "unavailable"
    retryable = True


class Internal(HubError):
    code = "internal"


ERRORS: dict[str, type[HubError]] = {
    cls.code: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, TooLarge, RateLimited, Unavailable, Internal,
    )
}  # fmt: skip
