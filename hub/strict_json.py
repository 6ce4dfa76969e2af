"""JSON as stock clients bear it: bounded depth, finite numbers, placeholders that have their attachments.

JavaScript writes half of a surrogate pair as an escape, which JSON allows and msgspec refuses: it is taken here, too.
Every function raises ValueError with what is wrong; its caller makes an error of its own of that. It is a RefusedJson where
stock clients write such a text: Python writes NaN and infinities, and each client nests without a bound.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

# How deep arrays and objects may nest, unless set otherwise.
MAX_DEPTH = 100
# Digits of the longest integer: stock Python clients drop a message with one of more than 100 characters.
INTEGER_DIGITS = 99
OUT_OF_RANGE = "a number out of range"


class RefusedJson(ValueError):
    """JSON in the form of a stock client, with something in it that other stock clients cannot read."""


def loads(text: str, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON strictly: no NaN or infinities, by name or by size, no more than `max_depth` levels."""
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        data = loads_slowly(text, max_depth, finite=True)
    except UnicodeEncodeError:
        raise ValueError("invalid JSON") from None
    if text.count("[") + text.count("{") > max_depth and depth(data) > max_depth:
        raise RefusedJson(f"nested deeper than {max_depth}")
    return data


def loads_slowly(text: str | bytes, max_depth: int = MAX_DEPTH, *, finite: bool = False) -> Any:
    """Parse what msgspec does not read: JSON with half surrogate pairs, but no NaN or infinities by name; nor by size where `finite`.

    Depth is not counted, and `max_depth` is named where JSON nests too deep for the parser.
    """
    strange: set[str] = set()
    try:
        value = json.loads(
            text, parse_constant=strange.add, parse_float=_finite if finite else None
        )
    except RecursionError:
        raise RefusedJson(f"nested deeper than {max_depth}") from None
    except (json.JSONDecodeError, UnicodeError):
        raise ValueError("invalid JSON") from None
    except ValueError:  # of `_finite`, and for integers of more than 4,300 digits
        raise RefusedJson(OUT_OF_RANGE) from None
    if strange:
        raise RefusedJson(f"{min(strange)} is no finite number")
    return value


def depth(value: Any) -> int:
    """Return how deep arrays and objects are nested, found level by level, without recursion."""
    deepest = 0
    level = [value] if type(value) in (list, dict) else []
    while level:
        deepest += 1
        level = [
            item
            for parent in level
            for item in (parent.values() if type(parent) is dict else parent)
            if type(item) is list or type(item) is dict
        ]
    return deepest


def check_data(text: bytes, attachments: int, max_depth: int = MAX_DEPTH) -> None:
    """Refuse data that is JSON but breaks stock clients.

    `attachments`: how many came with it; its placeholders may refer to these.
    """
    if text.startswith(b'"'):
        return  # nothing nests in a string, and it is no number
    if text.count(b"[") + text.count(b"{") > max_depth and _is_deeper(text, max_depth):
        raise ValueError(f"nested deeper than {max_depth}")
    if _is_suspicious(text):
        try:
            value = json.loads(text)
        except ValueError:  # Python refuses integers of more than 4,300 digits
            raise ValueError(OUT_OF_RANGE) from None
        _check_value(value, attachments)


def renumber(data: bytes, first: int) -> bytes:
    """Return JSON whose placeholders count from `first`, to stand in a packet after other attachments."""

    def moved(found: dict[str, Any]) -> dict[str, Any]:
        if found.get("_placeholder") is True:
            found["num"] += first
        return found

    return json.dumps(json.loads(data, object_hook=moved)).encode()


# Makes every digit a 0 and every E an e, so that numbers that may be infinite are found by plain searches: patterns
# take up to five times as long.
_FLAT = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_NUMBER = b"0" * (INTEGER_DIGITS + 1)
# A key that breaks JavaScript clients before 4.4, in messages and in answers with attachments.
_BREAKING_KEY = "hasOwnProperty"
_BREAKING = _BREAKING_KEY.encode()


def _is_suspicious(text: bytes) -> bool:
    """Tell what needs a second look: two keys, also spelt with escapes, and numbers that may be too large."""
    flat = text.translate(_FLAT)
    # `in` takes twice as long.
    return (
        text.find(b"_placeholder") >= 0
        or text.find(_BREAKING) >= 0
        or (text.find(b"\\u00") >= 0 and _has_escaped_letter(text))
        or flat.find(b"e000") >= 0
        or flat.find(b"e+000") >= 0
        or flat.find(_LONG_NUMBER) >= 0
    )


def _has_escaped_letter(text: bytes) -> bool:
    """Tell whether a letter of one of these keys may be written as an escape."""
    return (
        text.find(b"\\u006") >= 0
        or text.find(b"\\u007") >= 0
        or text.find(b"\\u005") >= 0
        or text.find(b"\\u004") >= 0
    )


def _is_deeper(text: bytes, max_depth: int) -> bool:
    """Tell whether valid JSON nests deeper."""
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        return True
    except (msgspec.DecodeError, UnicodeError):  # half a surrogate pair, or a number out of range
        try:
            value = json.loads(text)
        except RecursionError:
            return True
        except ValueError:
            return False  # for another reason, which the search for suspicious numbers reports
    return depth(value) > max_depth


def _check_value(value: Any, attachments: int) -> None:
    if isinstance(value, dict):
        # Stock clients differ in what they take for a placeholder: `true` alone, what is true in Python and has a `num`, or
        # what is true in JavaScript, such as an empty list.
        if (mark := value.get("_placeholder")) or type(mark) in (list, dict):
            number = value.get("num")
            if mark is not True or type(number) is not int or not 0 <= number < attachments:
                raise ValueError("a _placeholder without its attachment")
        if _BREAKING_KEY in value:
            raise ValueError(f"the key {_BREAKING_KEY}")
        for item in value.values():
            _check_value(item, attachments)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, attachments)
    elif (isinstance(value, float) and value in (float("inf"), float("-inf"))) or (
        type(value) is int and abs(value) >= 10**INTEGER_DIGITS
    ):
        raise ValueError(OUT_OF_RANGE)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value
