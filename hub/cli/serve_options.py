"""The options of `hub serve`: which settings have one."""

from __future__ import annotations

from typing import NamedTuple

from hub.cli.settings_reference import SETTINGS, Setting


class OptionSpec(NamedTuple):
    """An option of `hub serve`. It gives a field of Settings, and its help is the field's explanation."""

    field: str
    # Stands for the value in the help; None: its unit does, or its choices do.
    metavar: str | None = None
    # The default in words, where its value does not explain itself.
    shown_default: str | None = None
    # Former names, which are still taken, and not shown.
    former: tuple[str, ...] = ()
    # True: it can be given several times; the values are joined by commas.
    repeated: bool = False

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.field]

    @property
    def name(self) -> str:
        return "--" + self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        return self.setting.variable

    @property
    def help(self) -> str:
        return self.setting.description


SERVE_OPTIONS = (
    OptionSpec("host", "ADDRESS", repeated=True),
    OptionSpec("port", "PORT"),
    OptionSpec("base_path", "PATH"),
    OptionSpec("redis_url", "URL", "the embedded server"),
    OptionSpec("data_dir", "DIRECTORY"),
    OptionSpec("fsync"),
    OptionSpec("redis_prefix", "WORD", former=("--prefix",)),
    OptionSpec("hosts", "NAMES", "any; on loopback its own"),
    OptionSpec("cors", "ORIGINS", "the hub's own pages only"),
    OptionSpec("trusted_proxies", "NETWORKS", "none"),
    OptionSpec("ping_interval"),
    OptionSpec("ping_timeout"),
    OptionSpec("max_message"),
    OptionSpec("max_connections", None, "as many as files may be open"),
    OptionSpec("connections_per_address"),
    OptionSpec("log_length"),
    OptionSpec("log_age"),
    OptionSpec("inbox_length"),
    OptionSpec("named_life"),
    OptionSpec("anonymous_life"),
    OptionSpec("drain"),
    OptionSpec("log_level"),
    OptionSpec("log_format"),
)
