"""The errors that a client may get, with their codes.

HubError
├── BadRequest      a field is missing, of the wrong type, or out of bounds
├── Unauthorized    the client has not proven who it is
├── Forbidden       the client may not do this
├── NotFound        what the request names does not exist
├── TooLarge        the request is over a documented size
├── RateLimited     the client sends too many requests in a short time
├── Unavailable     Redis is not reachable or slow; the outcome is unknown
└── Internal        a fault of the hub itself
"""

from __future__ import annotations

from typing import Any


class HubError(Exception):
    """An error that a client may see.

    `code`: see "Errors" in docs/protocol.md. `retryable`: true means that the same request may succeed later.
    """

    code = "internal"
    retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def to_answer(self) -> dict[str, Any]:
        """Return the answer of a verb that failed with this error."""
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


# By code.
ERRORS: dict[str, type[HubError]] = {
    cls.code: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, TooLarge, RateLimited, Unavailable, Internal,
    )
}  # fmt: skip
