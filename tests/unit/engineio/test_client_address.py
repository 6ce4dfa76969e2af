"""Addresses behind proxies."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from hub.engineio.client_address import is_loopback, remote_address
from hub.engineio.options import EngineOptions

PROXY = EngineOptions(trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1")))


def request(peer: str, **headers: str) -> Any:
    return make_mocked_request(
        "GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()}
    ).clone(remote=peer)


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        ("1.2.3.4", {}, "1.2.3.4"),
        ("1.2.3.4", {"X_Forwarded_For": "5.6.7.8"}, "1.2.3.4"),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("10.0.0.1", {"X_Forwarded_For": "5.6.7.8"}, "5.6.7.8"),
        ("10.0.0.1", {"X_Forwarded_For": "9.9.9.9, 5.6.7.8, 10.1.1.1"}, "5.6.7.8"),
        ("10.0.0.1", {"X_Forwarded_For": "5.6.7.8:1234"}, "5.6.7.8"),
        ("10.0.0.1", {"X_Forwarded_For": "unknown"}, "10.0.0.1"),
        ("10.0.0.1", {"X_Forwarded_For": "x, 10.0.0.7"}, "10.0.0.7"),
        ("::1", {"Forwarded": 'for="[2001:db8::7]:80";proto=http, for=10.2.3.4'}, "2001:db8::7"),
        # A client's own, which proxies that write the other one pass on.
        ("::1", {"Forwarded": "For=127.0.0.1", "X_Forwarded_For": "1.1.1.1"}, "1.1.1.1"),
        ("::ffff:10.0.0.1", {"X_Forwarded_For": "::ffff:5.6.7.8"}, "5.6.7.8"),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy(
    peer: str, headers: dict[str, str], expected: str
) -> None:
    assert remote_address(request(peer, **headers), PROXY) == expected


def test_a_proxy_may_begin_a_line_of_its_own() -> None:
    for name, client, proxy in (
        ("X-Forwarded-For", "9.9.9.9", "5.6.7.8"),
        ("Forwarded", "for=9.9.9.9", "for=5.6.7.8"),
    ):
        headers = CIMultiDict([(name, client), (name, proxy)])
        asked = make_mocked_request("GET", "/", headers=headers).clone(remote="10.0.0.1")
        assert remote_address(asked, PROXY) == "5.6.7.8"


def test_loopback() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("")
    assert not is_loopback("10.0.0.1")
