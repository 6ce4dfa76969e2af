"""Which pages may connect, by their origin."""

from __future__ import annotations

import pytest

from hub.engineio.cors import cors_headers
from hub.engineio.options import EngineOptions
from tests.unit.engineio.test_client_address import PROXY, request


@pytest.mark.parametrize(
    ("origin", "headers", "allowed"),
    [
        ("http://hub.example", {"Host": "hub.example"}, True),
        ("https://hub.example", {"Host": "hub.example"}, True),
        ("HTTP://Hub.Example", {"Host": "hub.EXAMPLE"}, True),
        ("http://hub.example:80", {"Host": "hub.example:80"}, True),
        ("http://hub.example:8000", {"Host": "hub.example:8000"}, True),
        ("http://hub.example:8000", {"Host": "hub.example"}, False),
        ("http://other.example", {"Host": "hub.example"}, False),
        ("null", {"Host": "hub.example"}, False),
        ("null", {"Host": ""}, False),
        ("http://a.example", {"Host": "b", "X_Forwarded_Host": "a.example"}, False),
    ],
)
def test_same_origin(origin: str, headers: dict[str, str], allowed: bool) -> None:
    found = cors_headers(request("1.2.3.4", Origin=origin, **headers), EngineOptions())
    assert (found is not None) is allowed


def test_same_origin_behind_a_trusted_proxy() -> None:
    asked = request("10.0.0.1", Origin="https://a.example", Host="b", X_Forwarded_Host="a.example")
    assert cors_headers(asked, PROXY) == {"Vary": "Origin"}


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:5173", True),
        ("https://localhost", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://localhost.evil.example", False),
        ("http://localhost:5173.evil.example", False),
        ("http://evil.example:5173", False),
        ("http://127.0.0.1.evil.example", False),
        ("capacitor://localhost", False),
        ("null", False),
        ("dev", False),
    ],
)
def test_dev_allows_any_origin_on_localhost(origin: str, allowed: bool) -> None:
    options = EngineOptions(cors=("dev", "https://a.example"))
    found = cors_headers(request("1.2.3.4", Origin=origin, Host="hub.example"), options)
    assert (found or {}).get("Access-Control-Allow-Origin") == (origin if allowed else None)
    listed = cors_headers(request("1.2.3.4", Origin="https://a.example", Host="h"), options)
    assert listed is not None


def test_no_origin_passes() -> None:
    assert cors_headers(request("1.2.3.4"), EngineOptions()) == {}
