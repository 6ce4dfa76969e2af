"""The engine gets the settings that it has options for."""

from __future__ import annotations

import dataclasses

import pytest

from hub.engineio.options import EngineOptions
from hub.runtime.engine_options import engine_options
from hub.settings import Settings

BOTH = {field.name for field in dataclasses.fields(EngineOptions)} & set(Settings.__struct_fields__)


@pytest.mark.parametrize("name", sorted(BOTH - {"max_connections", "cors", "trusted_proxies"}))
def test_a_setting_of_the_same_name_reaches_the_engine(name):
    default = getattr(Settings(), name)
    value = not default if isinstance(default, bool) else default * 1.5
    options = engine_options(Settings(**{name: type(default)(value)}), 10)
    assert getattr(options, name) == value


def test_what_the_engine_takes_in_another_form():
    settings = Settings(cors="HTTPS://a.org:443/", trusted_proxies="10.0.0.0/8", max_connections=7)
    options = engine_options(settings, 5)
    assert options.cors == ("https://a.org",)
    assert [str(network) for network in options.trusted_proxies] == ["10.0.0.0/8"]
    assert options.max_connections == 5


def test_a_replayed_batch_fits_into_the_buffer():
    settings = Settings(buffer_high=64 << 20, replay_bytes=32 << 20)
    assert engine_options(settings, 5).buffer_limit == 4 * (96 << 20)
