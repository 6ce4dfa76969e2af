"""What a pid is, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.pid import Pid

SECRET = "AbC-_123456789012345678x"


def test_a_pid_comes_back_as_it_was() -> None:
    """Client ids hold dots; the rest does not, so that it is taken apart from its end."""
    for client in ("ada", "a.b.c", "1.2.3", "-._", "x" * 128):
        pid = Pid(client, "1700000000000000", "3", SECRET)
        assert Pid.parse(str(pid)) == pid


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "...", "ada", "ada.1.0", f"ada.1.{SECRET}", f".1.0.{SECRET}", f"ada.1.0.{SECRET}\n",
        f"ada.x.0.{SECRET}", f"ada.1.-1.{SECRET}", f"ada.1.0.{SECRET}!", "ada.1.0.short", f"ada.{'1' * 17}.0.{SECRET}",
        f"ada.1.0.{'s' * 65}", f"{'a' * 129}.1.0.{SECRET}", f"a d.1.0.{SECRET}", f"ada.１.0.{SECRET}", f"ä.1.0.{SECRET}",
        f"ada.0x1.0.{SECRET}", f"\x00.1.0.{SECRET}",
    ],
)  # fmt: skip
def test_what_cannot_be_one(text: str) -> None:
    """Nothing else gets as far as Redis."""
    assert Pid.parse(text) is None


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """Parsing never fails, and what it accepts it gives back."""
    pid = Pid.parse(text)
    assert pid is None or str(pid) == text
