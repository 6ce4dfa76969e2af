"""Which hosts a hub serves, by its settings and by the addresses that it listens on."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from hub.refusals import RefusalLog
from hub.runtime.host_names import HostCheck, host_refusal, served_hosts
from hub.settings import Settings
from tests.unit.engineio.test_client_address import request

LOG = RefusalLog(logging.getLogger("test"))
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}


@pytest.mark.parametrize(
    ("settings", "addresses", "served"),
    [
        ({}, ["127.0.0.1"], LOOPBACK),
        ({"host": "localhost"}, ["127.0.0.1", "::1"], LOOPBACK),
        ({"host": "127.0.0.5,MyHost"}, ["127.0.0.5"], LOOPBACK | {"127.0.0.5", "myhost"}),
        ({"host": "::1"}, ["::1"], LOOPBACK),
        ({"host": "127.0.0.1,10.0.0.1"}, ["127.0.0.1", "10.0.0.1"], None),
        ({"host": "::"}, ["::", "0.0.0.0"], None),
        ({"host": "fe80::1%eth0"}, ["fe80::1%eth0"], None),
        ({"hosts": "a.example"}, ["127.0.0.1"], {"a.example"}),
        ({"hosts": "a.example", "host": "0.0.0.0"}, ["0.0.0.0"], {"a.example"}),
        ({"hosts": "a.example,*"}, ["127.0.0.1"], None),
    ],
)
def test_served_hosts(settings, addresses, served):
    assert served_hosts(Settings(**settings), addresses) == served


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Host": "A.example:80"}, None),
        ({"Host": "a.example:"}, None),
        ({"Host": "b.example"}, "b.example"),
        ({"Host": "a.example.b"}, "a.example.b"),
        ({"Host": "user@a.example"}, "user@a.example"),
        ({"Host": "a.example:80:80"}, "a.example:80:80"),
        ({}, ""),
        ({"Host": "a.example", "X_Forwarded_Host": "b.example"}, "b.example"),
        ({"Host": "b.example", "X_Forwarded_Host": "a.example"}, "b.example"),
        ({"Host": "a.example", "X_Forwarded_Host": "a.example:443, inner"}, None),
    ],
)
def test_the_host_of_a_request(headers, refused):
    settings = Settings(trusted_proxies="10.0.0.1")
    check = HostCheck(frozenset({"a.example"}), settings, Counter(), LOG)
    assert check.refused_host(request("10.0.0.1", **headers)) == refused


def test_only_a_trusted_proxy_forwards_a_host():
    check = HostCheck(frozenset({"a.example"}), Settings(), Counter(), LOG)
    asked = request("10.0.0.1", Host="a.example", X_Forwarded_Host="b.example")
    assert check.refused_host(asked) is None


def test_a_refusal_quotes_no_more_than_a_hundred_characters():
    assert host_refusal("b") == (
        "This hub does not serve the host 'b'. If it is to, list the host in HUB_HOSTS."
    )
    assert len(host_refusal("b" * 1000)) < 200
