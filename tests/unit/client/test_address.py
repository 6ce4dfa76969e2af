"""The URL of a hub: what is taken, what is refused, and by which sentence."""

from __future__ import annotations

import pytest

from hub.client import HubClient, Publisher
from hub.client.address import HubAddress


@pytest.mark.parametrize(
    ("url", "path", "shown"),
    [
        ("http://127.0.0.1:8000", "socket.io", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "socket.io", "http://127.0.0.1:8000"),
        ("https://example.org/hub", "hub/socket.io", "https://example.org/hub"),
        ("https://example.org/a/b/", "a/b/socket.io", "https://example.org/a/b"),
        ("wss://u:secret@example.org?k=v", "socket.io", "wss://example.org"),
        ("http://[::1]:8000", "socket.io", "http://[::1]:8000"),
        (" http://localhost:8000\n", "socket.io", "http://localhost:8000"),
    ],
)  # fmt: skip
def test_addresses(url, path, shown):
    address = HubAddress.parse(url)
    assert (address.path, address.shown) == (path, shown)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("localhost:8000", "has to begin with http:// or https://, as in http://localhost:8000"),
        ("127.0.0.1:8000", "as in http://127.0.0.1:8000"),
        ("example.org/hub", "as in http://example.org/hub"),
        ("//example.org", "has to begin with http://"),
        ("redis://localhost:6379", "has to begin with http://"),
        ("http:///hub", "has to begin with http://"),
        ("http://:8000", "names no host"),
        ("http://localhost:port", "is not a URL: Port could not be cast"),
        ("http://localhost:80000", "is not a URL: Port out of range"),
        ("http://[::1", "is not a URL"),
        ("http://localhost:8000/socket.io/", "ends in /socket.io, which the client adds by itself"),
        ("http://localhost:8000/#there", "has a fragment"),
        ("", "has to begin with http://"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [HubClient, Publisher])
def test_what_is_no_address_is_refused_in_a_sentence(kind, url, sentence):
    with pytest.raises(ValueError, match=r"^url: ") as caught:
        kind(url)
    assert sentence in str(caught.value)


def test_what_is_no_text_is_refused():
    with pytest.raises(TypeError, match=r"^url: text such as http://127\.0\.0\.1:8000"):
        HubClient(None)
