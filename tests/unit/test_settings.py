"""What settings mean beyond their types and bounds, which the command line's tests try."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from hub import settings
from hub.errors import BadRequest


@pytest.mark.parametrize(
    ("cors", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("dev,https://a.org", ("dev", "https://a.org")),
        ("https://example.org", ("https://example.org",)),
        ("https://example.org/", ("https://example.org",)),
        ("HTTPS://Example.ORG:8443", ("https://example.org:8443",)),
        ("https://a.org:443, http://b.org:80,", ("https://a.org", "http://b.org")),
        ("http://a.org:443", ("http://a.org:443",)),
        ("http://[::1]:3000,capacitor://localhost", ("http://[::1]:3000", "capacitor://localhost")),
    ],
)
def test_origins_are_as_browsers_name_them(cors, origins):
    assert settings.load({"HUB_CORS": cors}).origins == origins


@pytest.mark.parametrize(
    "cors",
    [
        "example.org", "https://", "https://a.org/b", "https://a.org?b", "https://u@a.org", "null",
        "https://a.org b.org", "https://*.a.org", "https://a.org:x", "https://bücher.example",
    ],
)  # fmt: skip
def test_what_no_browser_sends_as_an_origin_is_refused(cors):
    with pytest.raises(
        BadRequest, match=r"^cors: '.*' is neither \*, dev nor scheme://host\[:port\]$"
    ):
        settings.load({"HUB_CORS": f"https://example.org,{cors}"})


def test_the_port_of_an_origin_is_a_number_as_browsers_write_it():
    assert settings.load({"HUB_CORS": "http://a.org:08080,http://a.org:0080"}).origins == (
        "http://a.org:8080",
        "http://a.org",
    )
    for port in ("0", "65536", "99999"):
        with pytest.raises(BadRequest, match=r"^cors: '.*' has no port of 1 to 65535$"):
            settings.load({"HUB_CORS": f"http://a.org:{port}"})


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("", ()),
        ("*", ("*",)),
        ("Hub.Example, ::1,[2001:DB8::1],10.0.0.1", ("hub.example", "[::1]", "[2001:db8::1]", "10.0.0.1")),
    ],
)  # fmt: skip
def test_host_names_are_as_a_host_header_has_them(hosts, names):
    assert settings.load({"HUB_HOSTS": hosts}).host_names == names


@pytest.mark.parametrize("path", ["/", "", "//"])
def test_no_base_path_is_no_prefix(path):
    assert settings.Settings(base_path=path).url_prefix == ""


@pytest.mark.parametrize("path", ["/a/b-1", "a/b-1", "/a/b-1/"])
def test_a_base_path_needs_no_slashes_around_it(path):
    assert settings.Settings(base_path=path).url_prefix == "/a/b-1"


def test_proxies_are_addresses_and_networks():
    chosen = settings.load({"HUB_TRUSTED_PROXIES": "10.1.2.3/8, ::1"})
    assert chosen.proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    with pytest.raises(BadRequest, match=r"^trusted_proxies: 'x' is no address or network$"):
        settings.load({"HUB_TRUSTED_PROXIES": "x"})


def test_what_is_out_of_bounds_is_named():
    with pytest.raises(BadRequest, match=r"^port: Expected"):
        settings.load({"HUB_PORT": "70000"})
