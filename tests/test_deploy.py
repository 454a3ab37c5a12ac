"""The files of deploy/ are what their programs take, and say what the server does; those of compose.yaml run."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx2
import kubernetes_validate
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from antiphon.cli import parser
from antiphon.server.access import KEYLESS
from antiphon.settings import Settings
from tests.servers import postgres, valkey
from tests.servers.antiphon import PLAIN, antiphon, created, events, following, replayed
from tests.servers.chat import ChatServer
from tests.servers.running import serve

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
KUBERNETES_VERSIONS = ("1.25", kubernetes_validate.latest_version())

ANTIPHON = "/opt/antiphon/bin/antiphon"
VARIABLES = {setting.variable for setting in Settings.table()}
PASSED_ON = ("/v1/responses", "/v1/responses/resp_1/cancel", "/v1/models/a/b", "/openapi.json")
PORT = re.compile(r"\b8000\b")

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OBJECTS: list[dict[str, Any]] = [
    each for path in sorted(DEPLOY.glob("kubernetes/*.yaml")) for each in yaml.safe_load_all(path.read_text("utf-8"))
]
PODS: dict[str, Any] = {
    each["metadata"]["name"]: each["spec"]["template"] for each in OBJECTS if each["kind"] == "Deployment"
}


def place(path: Path) -> str:
    return path.relative_to(DEPLOY).as_posix()


def text(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, each in one line."""
    lines = re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE).replace("\\\n", "").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def instruction(name: str) -> str:
    """The only one of this name, or the last one, which is the one that counts."""
    return [rest for each, rest in instructions() if each == name][-1]


def unit(path: Path) -> ConfigParser:
    found = ConfigParser(strict=True, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(path.read_text("utf-8"))
    return found


def assignments(name: str) -> dict[str, str]:
    """What a file of variables sets, also where it is commented out."""
    found = re.findall(r"^#?([A-Z_]+)=(.*)$", text(name), re.MULTILINE)
    assert len(found) == len(dict(found))
    return {name: value or "secret" for name, value in found}


def of_compose(service: str) -> dict[str, str]:
    """The environment of a service, when env.example is filled in."""
    given = assignments("env.example")
    assert SERVICES[service]["env_file"] == ".env"
    own = SERVICES[service]["environment"]
    return {**given, **{name: re.sub(r"\$\{(\w+)[^}]*\}", lambda m: given[m[1]], own[name]) for name in own}}


def of_pod(name: str) -> dict[str, str]:
    (container,) = PODS[name]["spec"]["containers"]
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        kind, key = ("ConfigMap", "configMapRef") if "configMapRef" in source else ("Secret", "secretRef")
        (target,) = [o for o in OBJECTS if (o["kind"], o["metadata"]["name"]) == (kind, source[key]["name"])]
        found |= target.get("data", {}) | target.get("stringData", {})
    return found


@dataclass(frozen=True)
class Started:
    """A process as one of the files starts it, and how long it may take to end."""

    place: str
    command: list[str]  # what stands behind `antiphon`
    environment: dict[str, str]
    config: str | None  # the file that --config means
    stop_seconds_max: float

    def settings(self) -> Settings:
        options, unknown = parser().parse_known_args(self.command)
        assert unknown == []
        config = None if self.config is None else DEPLOY / self.config
        return Settings.load(vars(options), self.environment, config)


def started() -> Iterator[Started]:
    command = json.loads(instruction("CMD"))
    assert command.pop(0) == "antiphon"
    yield Started("Dockerfile", command, {}, None, float("inf"))
    for name, service in SERVICES.items():
        if service["image"] == "antiphon":
            command = shlex.split(service["command"])
            assert command.pop(0) == "antiphon"
            grace = service["stop_grace_period"].removesuffix("s")
            yield Started(f"compose.yaml-{name}", command, of_compose(name), None, float(grace))
    for name, pod in PODS.items():
        (container,) = pod["spec"]["containers"]
        command = list(container["command"])
        assert command.pop(0) == "antiphon"
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        if "lifecycle" in container:  # comes first, and counts
            sleep, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
            assert sleep == "sleep"
            grace -= int(seconds)
        yield Started(f"kubernetes-{name}", command, of_pod(name), None, grace)
    for path in UNITS:
        service = unit(path)["Service"]
        command = shlex.split(service["ExecStart"].replace("%i", "8001"))
        assert command.pop(0) == ANTIPHON
        assert service["EnvironmentFile"] == "-/etc/antiphon/antiphon.env"
        command[command.index("/etc/antiphon/antiphon.toml")] = str(DEPLOY / "systemd/antiphon.toml")
        variables = {} if path.name == "antiphon.service" else assignments("systemd/antiphon.env")
        grace = float(service["TimeoutStopSec"])
        yield Started(place(path), command, variables, "systemd/antiphon.toml", grace)


STARTED = [pytest.param(each, id=each.place) for each in started()]
NODES = [each for each in started() if each.command[0] == "serve"]


def probe(name: str) -> list[str]:
    """The command of a probe of the nodes' pods."""
    (container,) = PODS["antiphon"]["spec"]["containers"]
    command: list[str] = container[name]["exec"]["command"]
    return command


def healthcheck() -> list[str]:
    command: list[str] = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    return command


# what the programs take


def schema_of_compose(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def test_compose_takes_its_file(tmp_path: Path) -> None:
    checked = schema_of_compose(DEPLOY / "compose.yaml")
    (tmp_path / "compose.yaml").write_text(text("compose.yaml").replace("stop_grace_period", "stop_grace"))
    misspelled = schema_of_compose(tmp_path / "compose.yaml")

    assert (checked.returncode, checked.stderr) == (0, "")
    assert misspelled.returncode == 1
    assert "stop_grace" in misspelled.stdout


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("object", OBJECTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_kubernetes_takes_its_objects(object: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(object, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**object, "speck": {}}, version, strict=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_systemd_takes_its_units(tmp_path: Path) -> None:
    names = [path.name.replace("@", "@8001") for path in UNITS]
    for path, name in zip(UNITS, names, strict=True):
        (tmp_path / name).write_text(path.read_text("utf-8").replace(ANTIPHON, sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names)]

    checked = subprocess.run(command, capture_output=True, text=True, timeout=50)

    ours = [line for line in checked.stderr.splitlines() if any(name in line for name in names)]  # not the machine's
    assert (checked.returncode, ours) == (0, [])


def test_the_image_is_made_of_what_is_there(tmp_path: Path) -> None:
    sources = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    made = next(rest for name, rest in instructions() if name == "RUN").partition(" && ")[0]
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    subprocess.run(["sh", "-c", made], cwd=tmp_path, check=True)
    constraints = (tmp_path / "constraints.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    (installed,) = re.findall(r"'\.\[([a-z,]+)\]'", text("Dockerfile"))
    needed = [
        *project["dependencies"],
        *(each for extra in ("server", *installed.split(",")) for each in extras[extra]),
    ]
    names = {re.split(r"[^a-z0-9-]", each.replace(".", "-", 1))[0] for each in needed} - {"antiphon"}

    assert [each for each in sources if not each.startswith(("--", "/opt")) and not (ROOT / each).exists()] == []
    assert names <= {line.partition("==")[0] for line in constraints}
    assert all(re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.+]+", line) for line in constraints)


# what the server takes


@pytest.mark.parametrize("each", STARTED)
def test_each_process_starts_with_settings_that_there_are(each: Started) -> None:
    settings = each.settings()

    assert {name for name in each.environment if name.startswith("ANTIPHON_")} <= VARIABLES
    if each.place != "Dockerfile":
        assert settings.upstream is not None
    if each.place not in ("Dockerfile", "systemd/antiphon.service"):
        assert settings.postgres
    assert not settings.insecure_no_auth


@pytest.mark.parametrize("path", [*FILES, ROOT / "docs/operations.md"], ids=lambda path: path.name)
def test_each_variable_that_is_named_is_a_setting(path: Path) -> None:
    assert set(re.findall(r"ANTIPHON_[A-Z_]+", path.read_text("utf-8"))) <= VARIABLES


@pytest.mark.parametrize("each", STARTED)
def test_a_process_has_time_to_stop(each: Started) -> None:
    traces_seconds = 10  # the default of OTEL_EXPORTER_OTLP_TIMEOUT, for a collector that does not answer

    assert each.stop_seconds_max >= each.settings().stop_seconds + traces_seconds + 5


# what the files say of each other


def test_whoever_asks_a_node_asks_the_port_on_which_it_listens() -> None:
    (container,) = PODS["antiphon"]["spec"]["containers"]
    (service,) = [each for each in OBJECTS if each["kind"] == "Service"]
    (port,) = service["spec"]["ports"]
    ingress = next(each for each in OBJECTS if each["kind"] == "Ingress")
    backends = [path["backend"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]

    assert {each.settings().port for each in NODES if "systemd" not in each.place} == {8000}
    assert instruction("EXPOSE") == "8000"
    assert container["ports"] == [{"name": port["targetPort"], "containerPort": 8000}]
    assert all(each == {"service": {"name": "antiphon", "port": {"name": port["name"]}}} for each in backends)
    for command in (healthcheck(), probe("startupProbe"), probe("livenessProbe"), probe("readinessProbe")):
        assert len(PORT.findall(command[-1])) == 1
    nodes = {f"{name}:8000" for name, each in SERVICES.items() if str(each.get("command")).startswith("antiphon serve")}
    assert set(re.findall(r"reverse_proxy (.*) \{", text("Caddyfile"))[0].split()) == nodes
    assert set(re.findall(r"server (127\.0\.0\.1:\d+)", text("nginx.conf"))) == {"127.0.0.1:8001", "127.0.0.1:8002"}
    (beside_nginx,) = [each.settings() for each in NODES if each.place == "systemd/antiphon@.service"]
    assert (beside_nginx.host, beside_nginx.port) == ("127.0.0.1", 8001)


def test_proxies_pass_on_the_api_and_nothing_else() -> None:
    caddy = re.findall(r"@api path (.*)", text("Caddyfile"))[0].split()
    nginx = re.findall(r"location ~ (\S+) \{\s+proxy_pass", text("nginx.conf"))
    ingress = next(each for each in OBJECTS if each["kind"] == "Ingress")
    (rule,) = ingress["spec"]["rules"]
    prefixes = [path["path"] for path in rule["http"]["paths"]]

    for path in (*PASSED_ON, *KEYLESS):
        expected = path in PASSED_ON
        assert any(fnmatch(path, each) for each in caddy) is expected, path
        assert any(re.search(each, path) for each in nginx) is expected, path
        assert any(f"{path}/".startswith(f"{each}/") for each in prefixes) is expected, path


def test_proxies_let_the_largest_body_through() -> None:
    limit = f"{Settings().max_body_bytes >> 20}m"
    ingress = next(each for each in OBJECTS if each["kind"] == "Ingress")

    assert f"client_max_body_size {limit};" in text("nginx.conf")
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"] == limit


def test_what_compose_asks_for_stands_in_the_example_and_reaches_whom_it_is_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)", text("compose.yaml")))
    used = set(re.findall(r"\{\$(\w+)\}", text("Caddyfile")))

    assert asked <= set(assignments("env.example"))
    assert used == set(SERVICES["proxy"]["environment"])
    assert {name for name, each in SERVICES.items() if "ports" in each} == {"proxy"}
    volumes = [str(volume).partition(":")[0] for each in SERVICES.values() for volume in each.get("volumes", ())]
    assert {each for each in volumes if not each.startswith("./")} == set(COMPOSE["volumes"])
    assert all((DEPLOY / each).exists() for each in volumes if each.startswith("./"))


def test_pods_are_found_by_what_is_to_find_them() -> None:
    for each in OBJECTS:
        if each["kind"] == "Deployment":
            template = each["spec"]["template"]
            assert each["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    selectors = [each["spec"]["selector"] for each in OBJECTS if each["kind"] in ("Service", "PodDisruptionBudget")]

    assert len(selectors) == 2
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert [name for name, pod in PODS.items() if wanted.items() <= pod["metadata"]["labels"].items()] == [
            "antiphon"
        ]


def test_pods_are_alike_and_hear_nothing_of_the_service_that_is_named_like_a_setting() -> None:
    containers = [pod["spec"]["containers"][0] for pod in PODS.values()]

    assert len({each["image"] for each in containers}) == 1
    assert len({str(each["envFrom"]) for each in containers}) == 1
    assert "ANTIPHON_PORT" in VARIABLES  # what Kubernetes would set for the Service `antiphon`
    for pod in PODS.values():
        assert pod["spec"]["enableServiceLinks"] is False
        assert str(pod["spec"]["securityContext"]["runAsUser"]) == instruction("USER")


async def test_alerts_ask_for_what_is_counted(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            await created(http, "text:Hello")
            page = (await http.get(server.url.removesuffix("/v1") + "/metrics")).text
    counted = {"up"}
    for family in text_string_to_metric_families(page):
        suffix = {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")
        counted.add(family.name + suffix)
    rules = [rule for group in yaml.safe_load(text("alerts.yaml"))["groups"] for rule in group["rules"]]
    asked = [set(re.findall(r"\b(?:antiphon_\w+|process_\w+|up\b)", rule["expr"])) for rule in rules]
    (full,) = [rule["expr"] for rule in rules if rule["alert"] == "AntiphonStreamsFull"]
    page = (ROOT / "docs/operations.md").read_text("utf-8")

    assert all(asked)
    assert set.union(*asked) <= counted
    assert 0.5 < int(full.rpartition(" ")[2]) / Settings().max_streams < 1
    assert [rule["alert"] for rule in rules if f"`{rule['alert']}`" not in page] == []


def test_the_page_leads_to_each_file() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")

    assert [place(path) for path in FILES if f"](../deploy/{place(path)})" not in page] == []


# and it runs


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Topology:
    """The processes of compose.yaml on this machine: its commands, its environment, other addresses."""

    def __init__(self, directory: Path, addresses: dict[str, str]) -> None:
        self._directory = directory
        self._addresses = addresses
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}

    def run(self, service: str, command: list[str]) -> str:
        """What `docker compose run` says."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self._directory, env=self._environment(service), check=True, capture_output=True, timeout=50,
        )  # fmt: skip
        return done.stdout.decode()

    def start(self, service: str) -> None:
        """Start it; gives back before it is up."""
        command = shlex.split(SERVICES[service]["command"].replace("0.0.0.0", "127.0.0.1"))
        if "serve" in command:
            self._ports[service] = free_port()
            command += ["--port", str(self._ports[service])]
        limited = ["sh", "-c", 'ulimit -Sn 256 && exec "$@"', "sh"]  # as few open files as it may have elsewhere
        self._running[service] = subprocess.Popen(
            [*limited, sys.executable, "-m", *command],
            cwd=self._directory, env=self._environment(service), stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait(self, service: str) -> None:
        """Until it has said what it serves, and from which database."""
        said = self._running[service].stderr
        assert said is not None
        lines = list(itertools.takewhile(lambda line: b"  database" not in line, said))
        assert self._running[service].poll() is None, lines

    def passes(self, service: str, probe: list[str]) -> bool:
        python, option, program = probe
        assert (python, option) == ("python", "-c")
        command = [sys.executable, "-c", PORT.sub(str(self._ports[service]), program)]
        done = subprocess.run(command, capture_output=True, timeout=30)
        assert self._running[service].poll() is None
        return done.returncode == 0

    def files_max(self, service: str) -> tuple[int, int]:
        """How many files it may open, and how many it could be allowed."""
        limits: tuple[int, int] = psutil.Process(self._running[service].pid).rlimit(psutil.RLIMIT_NOFILE)
        return limits

    def http(self, service: str, key: str) -> httpx2.AsyncClient:
        url = f"http://127.0.0.1:{self._ports[service]}/v1"
        return httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, **PLAIN)

    def stop(self, service: str) -> int:
        """Its exit code; it has the time that compose.yaml gives it."""
        process = self._running[service]
        process.send_signal(signal.SIGTERM)
        return process.wait(float(SERVICES[service]["stop_grace_period"].removesuffix("s")))

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.communicate()

    def _environment(self, service: str) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        return {**ours, **of_compose(service), **self._addresses}


async def test_the_nodes_of_compose_serve_stand_in_for_each_other_and_tell_how_they_are(tmp_path: Path) -> None:
    upstream = ChatServer()
    with ExitStack() as stack:
        database = stack.enter_context(postgres.server())
        addresses = {
            "ANTIPHON_DATABASE": database.url(),
            "ANTIPHON_BELL": stack.enter_context(valkey.server()).url,
            "ANTIPHON_LOG_LEVEL": "warning",  # nobody reads on when it is up
            "ANTIPHON_UPSTREAM": stack.enter_context(serve(upstream)) + "/v1",
        }
        nodes = Topology(tmp_path, addresses)
        stack.callback(nodes.close)
        made = await asyncio.to_thread(nodes.run, "work", ["antiphon", "keys", "create", "alice"])
        key = json.loads(made)["key"]
        for service in ("node-1", "node-2", "work"):
            nodes.start(service)
        for service in ("node-1", "node-2"):
            await asyncio.to_thread(nodes.wait, service)
            assert await asyncio.to_thread(nodes.passes, service, healthcheck())
            allowed, most = nodes.files_max(service)
            assert allowed == most > 256
        async with nodes.http("node-1", key) as one, nodes.http("node-2", key) as two:
            assert (await two.get("/models", headers={"authorization": ""})).status_code == 401
            response_id = (await created(one, "gate:2:2", background=True))["id"]
            async with following(two, response_id) as follower:
                await follower.deltas(2)
                assert await asyncio.to_thread(nodes.stop, "node-1") == 0
                (await upstream.request(1)).release()
                ended = events(await follower.rest())[-1]["response"]
            assert ended["status"] == "completed"
        probes = {name: probe(name) for name in ("startupProbe", "livenessProbe", "readinessProbe")}

        well = [name for name, each in probes.items() if await asyncio.to_thread(nodes.passes, "node-2", each)]
        await asyncio.to_thread(database.kill)
        ill = [name for name, each in probes.items() if await asyncio.to_thread(nodes.passes, "node-2", each)]

    assert well == ["startupProbe", "livenessProbe", "readinessProbe"]
    assert ill == ["startupProbe", "livenessProbe"]


async def test_a_dump_of_postgresql_is_a_whole_backup() -> None:
    """As docs/operations.md has it, made while a server runs."""
    with postgres.server() as database:
        backup = await postgres.create_database(database.url())
        with antiphon(database.url()) as server:
            async with server.http() as http:
                response_id = (await created(http, "text:Hello there"))["id"]
                said = await replayed(http, response_id)
                dumped = await asyncio.to_thread(
                    subprocess.check_output,
                    [str(postgres.PROGRAMS / "pg_dump"), "--schema=antiphon", "--format=custom", database.url()],
                )
        await asyncio.to_thread(
            subprocess.check_output,
            [str(postgres.PROGRAMS / "pg_restore"), "--exit-on-error", "--dbname", backup],
            input=dumped,
        )
        with antiphon(backup) as server:
            async with server.http() as http:
                assert await replayed(http, response_id) == said
                again = await created(http, "echo", previous_response_id=response_id)
        keys = [await postgres.run(url, "SELECT * FROM antiphon.secrets") for url in (database.url(), backup)]

    assert "Hello there" in json.dumps(again["output"])
    assert len(keys[0]) == 1
    assert keys[0] == keys[1]
