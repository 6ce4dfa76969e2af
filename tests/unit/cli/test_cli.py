"""The command line: what it hands to the hub, and one clear sentence for each mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import click
import pytest

import hub
import hub.runtime
from hub.cli import config, main
from hub.cli.serve_options import SERVE_OPTIONS
from hub.cli.settings_reference import SETTINGS
from hub.errors import Unavailable
from hub.settings import Settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capfd):
    """Run `hub` with these words; return (exit status, standard output, standard error)."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main.main(words)
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return run


def read_environment_file(text: str) -> dict[str, str]:
    """Read it as Compose does: lines that are empty or begin with # say nothing."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def app(monkeypatch):
    """A stand-in for hub.runtime.process that keeps what it was started with; its `serve` can be replaced."""
    module = ModuleType("hub.runtime.process")
    module.started = []

    async def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
        module.started.append(settings)
        announce("http://127.0.0.1:8000/")

    module.serve = serve
    monkeypatch.setitem(sys.modules, "hub.runtime.process", module)
    monkeypatch.setattr(hub.runtime, "process", module, raising=False)
    monkeypatch.setattr("hub.runtime.logs.setup", lambda level, form: None)
    return module


def test_serve_hands_over_the_settings_and_says_in_one_line_where_it_listens(run, app):
    assert run("serve") == (
        0,
        f"Socket.IO Hub {hub.__version__} listening on http://127.0.0.1:8000/\n",
        "",
    )
    assert app.started == [Settings()]


def test_an_option_wins_over_its_variable_and_a_variable_over_the_default(run, app, monkeypatch):
    monkeypatch.setenv("HUB_PORT", "9000")
    monkeypatch.setenv("HUB_REDIS_PREFIX", "mine")
    monkeypatch.setenv("HUB_LEASE", "3.5")
    run("serve", "--port", "9001")
    assert app.started == [Settings(port=9001, redis_prefix="mine", lease=3.5)]


def test_the_former_names_of_the_prefix_are_taken(run, app, monkeypatch):
    """HUB_PREFIX and --prefix, which the new names overrule."""
    monkeypatch.setenv("HUB_PREFIX", "former")
    run("serve")
    run("serve", "--prefix", "option")
    monkeypatch.setenv("HUB_REDIS_PREFIX", "new")
    run("serve")
    assert [each.redis_prefix for each in app.started] == ["former", "option", "new"]
    assert list(config.unknown_variables(os.environ)) == []
    assert "--prefix" not in run("serve", "--help")[1].replace("`--prefix`", "")


def test_a_host_can_be_given_several_times(run, app, monkeypatch):
    monkeypatch.setenv("HUB_HOST", "127.0.0.1, [::1]")
    run("serve")
    run("serve", "--host", "localhost", "--host", "::")
    assert [each.listening_names for each in app.started] == [
        ("127.0.0.1", "::1"),
        ("localhost", "::"),
    ]


def test_an_option_given_with_its_default_still_wins(run, app, monkeypatch):
    monkeypatch.setenv("HUB_PORT", "9000")
    run("serve", "--port", "8000")
    assert app.started[0].port == 8000


def test_an_empty_variable_counts_as_not_set(run, app, monkeypatch):
    """Compose files and service managers like to pass variables on empty."""
    for name in Settings.__struct_fields__:
        monkeypatch.setenv(f"HUB_{name.upper()}", "")
    run("serve")
    assert app.started == [Settings()]


def test_an_empty_option_counts_as_not_given_where_empty_says_nothing(run, app, monkeypatch):
    """An empty host would be every address; no Redis and no origins overrule a variable."""
    monkeypatch.setenv("HUB_REDIS_URL", "redis://localhost")
    monkeypatch.setenv("HUB_CORS", "*")
    monkeypatch.setenv("HUB_DATA_DIR", "/d")
    run("serve", "--host", "", "--data-dir", "", "--redis-url", "", "--cors", "")
    assert app.started == [Settings(data_dir="/d")]


@pytest.mark.parametrize("option", SERVE_OPTIONS, ids=lambda option: option.field)
def test_every_option_is_a_setting_and_has_its_help(run, option):
    assert option.field in Settings.__struct_fields__
    assert re.fullmatch(r"[A-Z].*\.", option.help)
    status, out, _ = run("serve", "--help")
    assert status == 0
    assert f"{option.name} " in out
    assert f"[{option.variable};" in re.sub(r"\s+", " ", out).replace("[ ", "[")


def test_help_fits_the_terminal(run):
    for words in (("--help",), ("serve", "--help"), ("settings", "--help")):
        assert max(map(len, run(*words)[1].splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["serve", "--port", "99999"],
            "Invalid value for --port: it takes a whole number, 0 to 65535.",
        ),
        (
            ["serve", "--port", "x"],
            "Invalid value for --port: it takes a whole number, 0 to 65535.",
        ),
        (
            ["serve", "--drain", "-1"],
            "Invalid value for --drain: it takes a number of seconds, 0 to 3600",
        ),
        (
            ["serve", "--ping-interval", "0"],
            "Invalid value for --ping-interval: it takes a number of sec",
        ),
        (
            ["serve", "--fsync", "never"],
            "Invalid value for --fsync: it is one of everysec, always.",
        ),
        (["serve", "--prefix", "a{b"], "Invalid value for --redis-prefix: it needs 1 to 64 char"),
        (["serve", "--base-path", "/a b"], "Invalid value for --base-path: '/a b' is no path"),
        (["serve", "--base-path", "/../a"], "Invalid value for --base-path: '/../a' is no path"),
        (["serve", "--base-path", "/a//b"], "Invalid value for --base-path: '/a//b' is no path"),
        (["serve", "--base-path", "/a?b"], "Invalid value for --base-path: '/a?b' is no path"),
        (["serve", "--host", ","], "Invalid value for --host: it names no address."),
        (["serve", "--hosts", "a.org:80"], "Invalid value for --hosts: 'a.org:80' is neither *"),
        (["serve", "--hosts", "http://a"], "Invalid value for --hosts: 'http://a' is neither *"),
        (["serve", "--redis-url", "localhost:6379"], "Invalid value for --redis-url: it begins"),
        (
            ["serve", "--cors", "example.org"],
            "Invalid value for --cors: 'example.org' is neither *",
        ),
        (
            ["serve", "--trusted-proxies", "x"],
            "Invalid value for --trusted-proxies: 'x' is no addr",
        ),
        (["serve", "--port"], "Option '--port' requires an argument."),
        (["serve", "--bogus"], "No such option '--bogus'."),
        (["serve", "more"], "Got unexpected extra argument (more)"),
        (["srve"], "No such command 'srve'."),
    ],
)
def test_a_mistake_gets_one_sentence_and_status_2(run, app, words, sentence):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"hub: {sentence}")
    assert err.count("\n") == 1
    assert app.started == []


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("HUB_PORT", "x", "Invalid value for HUB_PORT: it takes a whole number, 0 to 65535."),
        ("HUB_LEASE", "0", "Invalid value for HUB_LEASE: it takes a number of seconds, more"),
        ("HUB_PREFIX", "{}", "Invalid value for HUB_PREFIX: it needs 1 to 64 characters"),
        ("HUB_REDIS_PREFIX", "{}", "Invalid value for HUB_REDIS_PREFIX: it needs 1 to 64 char"),
        ("HUB_PREFIX", "hub\n", "Invalid value for HUB_PREFIX: it needs 1 to 64 characters"),
        ("HUB_FSYNC", "no", "Invalid value for HUB_FSYNC: it is one of everysec, always."),
        ("HUB_REDIS_URL", "http://x", "Invalid value for HUB_REDIS_URL: it begins with redis://"),
        ("HUB_CORS", "https://a.org/b", "Invalid value for HUB_CORS: 'https://a.org/b' is neither"),
        ("HUB_TRUSTED_PROXIES", "::1,a", "Invalid value for HUB_TRUSTED_PROXIES: 'a' is no addr"),
        (
            "HUB_BUFFER_LOW",
            "1000000",
            "Invalid value for HUB_BUFFER_LOW: it must be below HUB_BUFFER",
        ),
        (
            "HUB_LEASE",
            "nan",
            "Invalid value for HUB_LEASE: it takes a number of seconds, more than 0, at",
        ),
        (
            "HUB_LEASE",
            "1e400",
            "Invalid value for HUB_LEASE: it takes a number of seconds, more than 0",
        ),
        (
            "HUB_HTTP_COMPRESSION",
            "on",
            "Invalid value for HUB_HTTP_COMPRESSION: it takes true or f",
        ),
        (
            "HUB_MAX_MESSAGE",
            "1MB",
            "Invalid value for HUB_MAX_MESSAGE: it takes a whole number of bytes, 1",
        ),
        (
            "HUB_LOG_LEVEL",
            "loud",
            "Invalid value for HUB_LOG_LEVEL: it is one of debug, info, warning, er",
        ),
        (
            "HUB_PORT",
            "tcp://10.0.0.1:8000",
            "Invalid value for HUB_PORT: it takes a whole number, 0 to 6",
        ),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(run, app, monkeypatch, name, value, sentence):
    monkeypatch.setenv(name, value)
    status, out, err = run("serve")
    assert (status, out) == (2, "")
    assert err.startswith(f"hub: {sentence}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
@pytest.mark.parametrize(
    "value", ["", "x", "-1", "1e99", "nan", "99999999999999999999", "true", "{}"]
)
def test_a_refused_value_is_told_what_is_taken(monkeypatch, setting, value):
    """In the setting's own words, and never in those of the library that reads it."""
    try:
        config.read_settings({setting.variable: value}, {})
    except click.UsageError as error:
        sentence = error.format_message()
        assert sentence.startswith(f"Invalid value for {setting.variable}: ")
        assert sentence.endswith(".")
        assert not re.search(r"Expected|`|\bint\b|\bfloat\b|\bstr\b", sentence)


def test_kubernetes_sets_a_variable_of_the_same_name(monkeypatch):
    """HUB_PORT for a service that is called hub: the sentence says so, and nothing is said of its other variables."""
    with pytest.raises(click.UsageError, match=r"0 to 65535 \(Kubernetes .* enableServiceLinks"):
        config.read_settings({"HUB_PORT": "tcp://10.0.0.1:8000"}, {})
    others = ("HUB_SERVICE_HOST", "HUB_SERVICE_PORT", "HUB_PORT_8000_TCP", "HUB_PORT_8000_TCP_ADDR")
    assert list(config.unknown_variables(dict.fromkeys(others, "x"))) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("HUB_CORSS", "did you mean HUB_CORS?"),
        ("HUB_TRUSTED_PROXY", "did you mean HUB_TRUSTED_PROXIES?"),
        ("hub_port", "did you mean HUB_PORT?"),
        ("HUB_MAX_CONECTIONS", "did you mean HUB_MAX_CONNECTIONS?"),
        ("HUB_ZZZ", "`hub settings` lists all."),
    ],
)
def test_a_misspelt_variable_is_warned_about(run, app, monkeypatch, caplog, name, hint):
    monkeypatch.setenv(name, "1")
    sentence = f"{name} is no setting of the hub, and is ignored: {hint}"
    assert run("serve")[0] == 0
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", sentence)
    ]
    assert run("settings")[2] == f"hub: {sentence}\n"


@pytest.mark.parametrize("level", ["DEBUG", "Warning", "error"])
def test_words_are_taken_in_capitals_too(run, app, monkeypatch, level):
    monkeypatch.setenv("HUB_FSYNC", "ALWAYS")
    run("serve", "--log-level", level)
    assert app.started == [Settings(log_level=level.lower(), fsync="always")]


def test_settings_names_a_mistake_too(run, monkeypatch):
    monkeypatch.setenv("HUB_FSYNC", "always\n")
    status, out, err = run("settings")
    assert (status, out) == (2, "")
    assert err == "hub: Invalid value for HUB_FSYNC: it is one of everysec, always.\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Unavailable("Redis at redis://x is not reachable."), "Redis at redis://x is not"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "No such file or directory: /x"),
    ],
)
def test_a_hub_that_cannot_run_says_why_and_exits_1(run, app, error, sentence):
    async def refuse(settings: Settings, *, announce: object) -> Awaitable[None]:
        raise error

    app.serve = refuse
    status, out, err = run("serve")
    assert (status, out) == (1, "")
    assert err.startswith(f"hub: {sentence}")
    assert err.count("\n") == 1


def test_in_a_log_of_json_the_reason_is_a_line_of_it(run, app, caplog):
    async def refuse(settings: Settings, *, announce: object) -> Awaitable[None]:
        raise Unavailable("Redis is away")

    app.serve = refuse
    assert run("serve", "--log-format", "json") == (1, "", "")
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "Redis is away")


def test_a_fault_of_the_hubs_own_is_not_made_pretty(app):
    async def fail(settings: Settings, *, announce: object) -> None:
        raise RuntimeError("a bug")

    app.serve = fail
    with pytest.raises(RuntimeError, match="a bug"):
        main.main(["serve"])


def test_the_hub_runs_under_uvloop(run, app):
    import asyncio

    loops = []

    async def look(settings: Settings, *, announce: object) -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    app.serve = look
    run("serve")
    assert loops == ["uvloop"]


def test_settings_lists_all_in_effect_without_the_password(run, monkeypatch):
    monkeypatch.setenv("HUB_REDIS_URL", "redis://user:secret@host/0")
    monkeypatch.setenv("HUB_LEASE", "3")
    status, out, err = run("settings")
    assert (status, err) == (0, "")
    values = read_environment_file(out)
    assert list(values) == [f"HUB_{name.upper()}" for name in Settings.__struct_fields__]
    assert values["HUB_REDIS_URL"] == "redis://user:***@host/0"
    assert "secret" not in out


def test_settings_explains_each(run, monkeypatch):
    """In comments before it: what it does, unit, default and bounds; a changed one is marked."""
    monkeypatch.setenv("HUB_LEASE", "3")
    out = run("settings")[1]
    for setting in SETTINGS.values():
        comment = out.partition(f"\n{setting.variable}=")[0].rpartition("\n\n")[2]
        lines = comment.splitlines()
        assert all(line.startswith("# ") for line in lines)
        assert " ".join(line[2:] for line in lines[:-1]) == setting.description
        assert f"default: {setting.default_text}" in lines[-1]
        assert setting.bounds in lines[-1]
        assert ("changed below" in lines[-1]) == (setting.name == "lease")
    assert max(map(len, out.splitlines())) <= config.WIDTH


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0?password=secret", "redis://h/0?password=***"),
        ("unix:///s?db=1&password=secret&username=u", "unix:///s?db=1&password=***&username=u"),
        ("rediss://:secret@h?ssl_password=secret", "rediss://:***@h?ssl_password=***"),
    ],
)
def test_settings_hides_a_password_wherever_it_stands(run, monkeypatch, url, shown):
    monkeypatch.setenv("HUB_REDIS_URL", url)
    assert f"HUB_REDIS_URL={shown}\n" in run("settings")[1]


def test_settings_can_be_read_back(run, monkeypatch):
    assert config.read_settings(read_environment_file(run("settings")[1]), {}) == Settings()


def test_a_shell_can_read_the_settings(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HUB_LEASE", "3.5")
    (tmp_path / "hub.env").write_text(run("settings")[1])
    read = subprocess.run(
        ["sh", "-euc", "set -a; . ./hub.env; env"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert read.stderr == ""
    assert config.read_settings(read_environment_file(read.stdout), {}) == Settings(lease=3.5)


def test_version(run):
    assert run("--version") == (0, f"hub {hub.__version__}\n", "")


def test_without_words_it_says_what_there_is(run):
    status, _, err = run()
    assert status == 2
    assert err.startswith("Usage: hub ")
    assert "serve" in err


def test_the_script_is_installed():
    """As people call it: a process, its output, its status."""
    script = Path(sys.executable).with_name("hub")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"hub {hub.__version__}\n"
