"""What is shipped: the wheel, the container image's build, the Compose file, the set-up's own files.

No Docker engine is needed: what the Dockerfile and the Compose file say is done without one.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

import hub
from hub import settings
from hub.runtime import static_files
from hub.settings import Settings
from tests.support.redis import RedisServer
from tests.support.times import SOON, UNIT
from tests.support.tools import ROOT

PAGE = {"index.html", "app.js", "style.css", "icon.svg"}
CLIENT = "socket.io/socket.io.min.js"


def get(url: str) -> tuple[int, str, bytes]:
    with urllib.request.urlopen(url, timeout=SOON) as answer:
        return answer.status, answer.headers.get_content_type(), answer.read()


class Served:
    """A hub started by a command line that a test took from what is shipped."""

    def __init__(self, command: list[str], environ: dict[str, str], directory: Path) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HUB_", "PYTHON"))}
        self._log = (directory / "hub.log").open("w+b")
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=clean | environ,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode()
        found = re.search(r"http://\S+:(\d+)/", said)
        if found is None:
            self.stop()
        assert found is not None, (directory / "hub.log").read_text()
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> int:
        self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        status = self.process.wait(2 * SOON)
        self._log.close()
        return status


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hub-p-"))
    yield directory
    shutil.rmtree(directory)


# ------------------------------------------------------------------------- static files


def test_every_file_of_the_page_is_found():
    found = static_files.routes(page=True)
    assert all(file.is_file() for file in found.values())
    assert {path for path in found if not path.startswith("/socket.io/")} == {
        "/",
        "/favicon.ico",
        "/static/app.js",
        "/static/style.css",
        "/static/icon.svg",
    }
    assert {"/socket.io/socket.io.min.js", "/socket.io/socket.io.min.js.map"} <= found.keys()
    assert found["/"] == static_files.static_dir() / "index.html"
    assert found["/socket.io/socket.io.min.js"] == static_files.client_dir() / "socket.io.min.js"


def test_a_hub_serves_without_files_that_are_missing(monkeypatch, tmp_path, caplog):
    """The log names their paths, and the remedy."""
    monkeypatch.setattr(static_files, "_CHECKOUT", tmp_path)
    (tmp_path / "index.html").touch()
    assert static_files.routes(page=True) == {"/": tmp_path / "index.html"}
    [record] = caplog.records
    assert "`make setup`" in record.getMessage()
    assert "/socket.io/socket.io.min.js" in record.paths


def test_a_hub_without_the_page_has_the_stock_client():
    found = static_files.routes(page=False)
    assert "/socket.io/socket.io.min.js" in found
    assert all(path.startswith("/socket.io/") for path in found)


def test_the_page_names_no_other_host():
    for name in PAGE:
        text = (ROOT / "static" / name).read_text()
        assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "<script>" not in (ROOT / "static/index.html").read_text()


# ------------------------------------------------------------------ set-up's own files


def test_nothing_pinned_names_a_host():
    for name in ("constraints.txt", "static/package-lock.json", "static/.npmrc"):
        assert "://" not in (ROOT / name).read_text(), name
    lock = json.loads((ROOT / "static/package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


def test_the_stock_client_is_pinned_exactly():
    package = json.loads((ROOT / "static/package.json").read_text())
    assert re.fullmatch(r"4\.8\.\d+", package["dependencies"]["socket.io-client"])


def test_the_constraints_pin_every_requirement_within_its_range():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version, line
            pins[name.lower().replace("_", "-")] = version
    for text in metadata.requires("socketio-hub") or []:
        wanted = Requirement(text)
        if wanted.name != "socketio-hub":
            name = wanted.name.lower().replace("_", "-")
            assert wanted.specifier.contains(pins[name]), text


def test_what_the_hub_reaches_into_is_pinned_to_its_minor_version():
    pinned = {"python-socketio", "python-engineio", "aiohttp"}
    for text in metadata.requires("socketio-hub") or []:
        wanted = Requirement(text)
        if wanted.name in pinned and wanted.marker is None:
            pinned.remove(wanted.name)
            major, minor = map(int, metadata.version(wanted.name).split(".")[:2])
            assert not wanted.specifier.contains(f"{major}.{minor + 1}.0"), text
    assert not pinned


def test_the_makefile_has_what_the_contract_names():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("setup", "run", "test", "lint"):
        assert re.search(rf"^{target}:.* ## ", makefile, re.MULTILINE), target


def test_running_asks_for_no_test_tool():
    """What `make run` installs is `setup` alone, without the extra of the tests."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^run: setup ##", makefile, re.MULTILINE)
    stamp = re.search(r"^\$\(RUN_STAMP\):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert stamp is not None
    assert "'.[client]'" in stamp[1]
    assert "nodejs" not in stamp[1]


# ---------------------------------------------------------------------------- the wheel


@pytest.mark.timeout(300 * UNIT)
def test_the_wheel_has_the_page_and_its_libraries(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, "."],
        cwd=ROOT,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"socketio_hub-{hub.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert {f"hub/_static/{name}" for name in PAGE} <= names
        for name in (*static_files.CLIENT_FILES, "LICENSE"):
            assert f"hub/_static/socket.io/{name}" in names
        library = archive.read(f"hub/_static/{CLIENT}")
        assert library.startswith(b"/*!\n * Socket.IO v4.8.")
        assert {name.split("/")[0] for name in names} == {
            "hub",
            f"socketio_hub-{hub.__version__}.dist-info",
        }
        assert "hub/py.typed" in names
        assert any(name.endswith(".lua") for name in names)


# ----------------------------------------------------------------------- the Dockerfile


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile as (instruction, argument), continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def of(instruction: str) -> list[str]:
    return [argument for word, argument in dockerfile() if word == instruction]


def build_context(where: Path) -> None:
    """Copy what the image's build gets to see: .dockerignore read as Docker reads it."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def seen(path: str) -> bool:
        """The last rule that fits the path, or a directory above it, decides."""
        above = [path.rsplit("/", n)[0] for n in range(path.count("/") + 1)]
        kept = True
        for rule in rules:
            pattern = rule.removeprefix("!")
            patterns = {pattern, pattern.removeprefix("**/")}
            if any(
                fnmatch.fnmatch(part, p) and (part.count("/") == p.count("/") or "**" in rule)
                for part in above
                for p in patterns
            ):
                kept = rule.startswith("!")
        return kept

    for directory, names, files in os.walk(ROOT):
        inside = os.path.relpath(directory, ROOT)
        names[:] = [n for n in names if n not in (".git", ".venv", "node_modules")]
        for name in files:
            path = name if inside == "." else f"{inside}/{name}"
            if seen(path):
                (where / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, where / path)


def test_the_dockerfile_is_in_stages_and_ends_without_root():
    words = [word for word, _ in dockerfile()]
    assert words.count("FROM") == 2
    assert of("FROM")[0].endswith(" AS build")
    last = dockerfile()[len(words) - 1 - words[::-1].index("FROM") :]
    user = [argument for word, argument in last if word == "USER"]
    assert user == ["hub"]
    assert re.search(r"useradd .* hub(\s|$)", " ".join(of("RUN")))


def test_every_source_that_the_dockerfile_copies_exists():
    stages = re.findall(r" AS (\w+)", " ".join(of("FROM")))
    for copied in of("COPY"):
        words = shlex.split(copied)
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
            assert words[1] in of("RUN")[0], "what the stage before has made"
        else:
            for source in words[:-1]:
                assert (ROOT / source).exists(), source


def test_every_variable_of_the_image_is_a_setting():
    for line in of("ENV"):
        name, _, value = line.partition("=")
        if name.startswith("HUB_"):
            assert name.removeprefix("HUB_").lower() in Settings.__struct_fields__
            assert value
    assert f"HUB_PORT={of('EXPOSE')[0]}" in of("ENV")
    assert f"HUB_DATA_DIR={of('VOLUME')[0]}" in of("ENV")


def test_the_build_context_is_what_the_build_needs(tmp_path):
    build_context(tmp_path)
    top = {path.name for path in tmp_path.iterdir()}
    assert {"hub", "static", "pyproject.toml", "hatch_build.py", "constraints.txt"} <= top
    assert not top & {"tests", ".git", ".venv", "Makefile", "docker-compose.yml"}
    assert not (tmp_path / "static/node_modules").exists()
    assert not list(tmp_path.rglob("*.pyc"))


@pytest.mark.timeout(600 * UNIT)
@pytest.mark.long
@pytest.mark.slow
def test_the_image_is_built_and_runs_as_the_dockerfile_says(tmp_path, short):
    """Its build's commands in its build context, on a machine without Node.js; then the hub that came of it.

    So it is also the wheel in an empty environment that runs by `hub serve` alone.
    """
    context, prefix, tools = tmp_path / "src", short / "opt", tmp_path / "bin"
    build_context(context)
    tools.mkdir()
    (tools / "python").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    for tool in ("sh", "env", "uname", "dirname", "readlink"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    (build,) = of("RUN")[:1]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HUB_", "PYTHON", "VIRT"))}
    subprocess.run(
        ["sh", "-c", build.replace("/opt/hub", str(prefix))],
        cwd=context,
        env=environ | {"PATH": str(tools)},
        check=True,
    )
    programs = [path for path in prefix.rglob("node") if path.is_file()]
    assert not programs, "Node.js is for the build alone"

    image = dict(line.split("=", 1) for line in of("ENV"))
    image["PATH"] = f"{prefix}/bin:{os.environ['PATH']}"
    image |= {"HUB_HOST": "127.0.0.1", "HUB_PORT": "0", "HUB_DATA_DIR": str(short / "data")}
    command = json.loads(of("ENTRYPOINT")[0]) + json.loads(of("CMD")[0])
    assert command == ["hub", "serve"]
    served = Served([str(prefix / "bin" / command[0]), *command[1:]], image, short)
    try:
        assert get(f"{served.url}/")[:2] == (200, "text/html")
        status, kind, body = get(f"{served.url}/{CLIENT}")
        assert status == 200
        assert kind in ("text/javascript", "application/javascript")
        assert body.startswith(b"/*!\n * Socket.IO v4.8.")
        health = of("HEALTHCHECK")[0]
        check = json.loads(health[health.index("CMD ") + 4 :])
        image["HUB_PORT"] = str(served.port)
        asked = [str(prefix / "bin" / check[0]), *check[1:]]
        assert subprocess.run(asked, env=image, check=False).returncode == 0
    finally:
        assert served.stop() == 0
    assert subprocess.run(asked, env=image, check=False, capture_output=True).returncode == 1


# --------------------------------------------------------------------- the Compose file


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_the_compose_file_keeps_to_the_specification(compose):
    """The schema is the Compose specification's own, as check-jsonschema carries it."""
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(compose)] == []
    assert list(validator.iter_errors({"services": {"hub": {"prots": []}}})), "it does look"


def test_its_parts_fit_together(compose):
    services = compose["services"]
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
    environ = services["hub"]["environment"]
    assert environ["HUB_REDIS_URL"].startswith("redis://redis:6379")
    assert (ROOT / services["hub"]["build"] / "Dockerfile").is_file()
    assert services["hub"]["ports"] == [f"127.0.0.1:8000:{of('EXPOSE')[0]}"]
    for name in environ:
        assert name.removeprefix("HUB_").lower() in Settings.__struct_fields__


def interpolate(value: str) -> str:
    """Do as Compose does with ${NAME:-default}, in an empty environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_its_clients_are_not_counted_by_an_address_that_all_of_them_share(compose):
    """A connection to a published port comes from the network's gateway."""
    given = compose["services"]["hub"]["environment"]
    environ = {name: interpolate(value) for name, value in given.items()}
    chosen = settings.load(environ)
    assert not chosen.proxies, "no proxy of its own, and so nobody says who calls"
    assert chosen.connections_per_address == chosen.newcomers_per_address == 0


def test_the_hub_runs_with_its_environment_on_its_redis(compose, short):
    """Exactly the file's options and variables, with addresses of this machine."""
    redis = compose["services"]["redis"]["command"]
    assert redis[0] == "valkey-server"
    server = RedisServer(*redis[1:])
    try:
        assert server.client.config_get("appendonly") == {"appendonly": "yes"}
        assert server.client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert server.client.config_get("save") == {"save": ""}
        image = dict(line.split("=", 1) for line in of("ENV") if line.startswith("HUB_"))
        given = compose["services"]["hub"]["environment"]
        environ = image | {name: interpolate(value) for name, value in given.items()}
        environ |= {"HUB_HOST": "127.0.0.1", "HUB_PORT": "0", "HUB_REDIS_URL": server.url}
        environ["HUB_DATA_DIR"] = "/nonexistent"  # the container is read-only
        command = [str(Path(sys.executable).with_name("hub")), "serve"]
        served = Served(command, environ, short)
        try:
            assert get(f"{served.url}/readyz")[0] == 200
            assert server.client.keys("hub:*"), "it is this Redis that it uses"
        finally:
            assert served.stop() == 0
    finally:
        server.stop()


def test_its_redis_comes_back_with_its_data(compose):
    server = RedisServer(*compose["services"]["redis"]["command"][1:])
    try:
        server.client.set("key", "value")
        server.kill()
        server.start()
        assert server.client.get("key") == "value"
    finally:
        server.stop()
