"""The options of `hub serve`: which settings they are."""

from __future__ import annotations

from typing import NamedTuple

from hub.cli.settings_reference import SETTINGS, Setting


class Flag(NamedTuple):
    """An option of `hub serve`: a field of Settings, whose explanation is its help."""

    field: str
    # Stands for the value in the help; otherwise its unit does.
    metavar: str | None = None
    # What the default does, where the value does not show it.
    shown_default: str | None = None

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.field]

    @property
    def name(self) -> str:
        return "--" + self.field.replace("_", "-")

    @property
    def envvar(self) -> str:
        return self.setting.variable

    @property
    def help(self) -> str:
        return self.setting.description


FLAGS = (
    Flag("host", "ADDRESS"),
    Flag("port", "PORT"),
    Flag("redis_url", "URL", "a server of the hub's own"),
    Flag("data_dir", "DIRECTORY"),
    Flag("fsync"),
    Flag("prefix", "WORD"),
    Flag("cors", "ORIGINS", "the hub's own pages only"),
    Flag("trusted_proxies", "NETWORKS", "none"),
    Flag("ping_interval"),
    Flag("ping_timeout"),
    Flag("max_payload"),
    Flag("max_connections", None, "as many as it may have files open"),
    Flag("connections_per_address"),
    Flag("log_length"),
    Flag("log_age"),
    Flag("inbox_length"),
    Flag("named_life"),
    Flag("anonymous_life"),
    Flag("drain"),
    Flag("log_level"),
)
