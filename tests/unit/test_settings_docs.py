"""The pages that are made from the code are as the code is, and every setting is explained."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from hub.cli.serve_options import SERVE_OPTIONS
from hub.cli.settings_reference import SETTINGS, Setting
from hub.settings import Settings
from tests.support.tools import ROOT

GENERATED = runpy.run_path(str(ROOT / "docs/generate.py"))["GENERATED"]


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    text = page.read_text()
    same = text == GENERATED[page](text)
    assert same, f"{page.relative_to(ROOT)} is not what the code says any more: run `make docs`"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_every_setting_is_explained(setting: Setting) -> None:
    """A section, whole sentences, a unit for each number, and a default within the bounds."""
    assert setting.section
    assert setting.description[0].isupper() or setting.description[0].isdigit()
    assert setting.description.endswith(".")
    if isinstance(setting.default, int | float) and not isinstance(setting.default, bool):
        assert setting.unit or setting.name == "port"
        assert setting.bounds


def test_settings_and_options_are_listed_in_the_order_of_the_struct() -> None:
    assert tuple(SETTINGS) == Settings.__struct_fields__
    places = [list(SETTINGS).index(option.field) for option in SERVE_OPTIONS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "default", "bounds"),
    [
        ("port", "8000", "0 to 65535"),
        ("redis_url", "empty", "it begins with redis://, rediss:// or unix://"),
        ("fsync", "everysec", "one of everysec, always"),
        ("host", "127.0.0.1", ""),
        ("http_compression", "true", "true or false"),
        ("ping_interval", "25", "more than 0, at most 315360000 (10 years)"),
        ("drain", "5", "0 to 3600 (1 h)"),
        ("log_age", "86400 (24 h)", "more than 0, at most 315360000 (10 years)"),
        ("anonymous_life", "600 (10 min)", "more than 0, at most 315360000 (10 years)"),
        ("max_message", "1000000 (1 MB)", "1024 (1 KiB) to 1073741824 (1 GiB)"),
        ("buffer_high", "262144 (256 KiB)", "1024 (1 KiB) to 1073741824 (1 GiB)"),
        ("replay_memory", "33554432 (32 MiB)", "0 to 1099511627776 (1 TiB)"),
    ],
)
def test_numbers_are_shown_in_larger_units_too(name: str, default: str, bounds: str) -> None:
    assert (SETTINGS[name].default_text, SETTINGS[name].bounds) == (default, bounds)
