"""Settings: everything that can be chosen about a server, read once at its start and passed on as an argument.

A setting is one line of the class below: name, type, default, what a value must be, what it means. Its flag, its
environment variable, its key in antiphon.toml and its line in docs/settings.md all follow from that line. Units are
part of the names. Nothing else of the package reads the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from antiphon.errors import BadSetting
from antiphon.setting_kinds import (
    API_KEYS,
    BELL,
    DATABASE,
    DAYS,
    FLAG,
    HOST,
    HTTP_URL,
    ORIGINS,
    PATH,
    SEAL_KEYS,
    TENANT_DAYS,
    TEXT,
    UPSTREAMS,
    Kind,
    Refused,
    amount,
    one_of,
    whole,
)
from antiphon.upstream import PROTOCOLS, Upstream, with_keys

PREFIX = "ANTIPHON_"
CONFIG = Path("antiphon.toml")


@dataclass(frozen=True)
class Setting:
    """One line of the table: what the command line, the page and the messages know about a setting."""

    name: str
    kind: Kind
    default: Any
    help: str
    group: str
    secret: bool  # not offered as a flag, where other users of the machine could read it, and never shown

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _setting(default: Any, kind: Kind, help: str, *, group: str, secret: bool = False) -> Any:
    metadata = {"kind": kind, "help": help, "group": group, "secret": secret}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a server, with defaults that work on a laptop."""

    host: str = _setting(
        "127.0.0.1", HOST, "The address to listen on. One that others can reach needs keys.", group="Serving"
    )
    port: int = _setting(8000, whole(0, 65535), "The port to listen on; 0 takes a free one.", group="Serving")
    api_keys: Mapping[str, str] = _setting(
        MappingProxyType({}),
        API_KEYS,
        "Keys beside those of `antiphon keys`: `name:key,name:key`, in antiphon.toml a table. Each name is a tenant.",
        group="Serving",
        secret=True,
    )
    admin_keys: Mapping[str, str] = _setting(
        MappingProxyType({}),
        API_KEYS,
        "Keys for whoever looks after the server, in the same form: for `/metrics` and the probes, and nothing else.",
        group="Serving",
        secret=True,
    )
    insecure_no_auth: bool = _setting(
        False, FLAG, "Listen on any address without keys. Whoever reaches the port can use everything.", group="Serving"
    )
    tls_cert: Path | None = _setting(
        None, PATH, "Serve by TLS, with this certificate and its chain, a PEM file.", group="Serving"
    )
    tls_key: Path | None = _setting(None, PATH, "The certificate's private key, a PEM file.", group="Serving")
    forwarded_allow_ips: str | None = _setting(
        None,
        TEXT,
        "The proxies, by address and separated by commas, whose `X-Forwarded-For` and `-Proto` are believed.",
        group="Serving",
    )
    cors_origins: tuple[str, ...] = _setting(
        (), ORIGINS, "The web sites whose pages may call from a browser; none by default.", group="Serving"
    )
    keepalive_seconds: float = _setting(
        15.0, amount(), "The longest silence in a stream before a comment line is sent.", group="Serving"
    )
    sse_done: bool = _setting(False, FLAG, "End each stream with `data: [DONE]`.", group="Serving")
    strict_tools: bool = _setting(
        False, FLAG, "Refuse requests that offer hosted tools, instead of leaving these out.", group="Serving"
    )
    stop_seconds: float = _setting(
        10.0, amount(zero=True), "How long a stopping server waits for requests to end.", group="Serving"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info",
        one_of("debug", "info", "warning", "error"),
        "The least important line that is logged.",
        group="Serving",
    )
    log_format: Literal["text", "json"] = _setting(
        "text", one_of("text", "json"), "How a line is logged: to be read, or as a JSON object.", group="Serving"
    )
    spec: str | None = _setting(
        None, TEXT, "Path or URL of another API description than the packaged one.", group="Serving"
    )

    max_body_bytes: int = _setting(
        33_554_432, whole(1), "The largest request body (32 MiB). More: 413.", group="Limits"
    )
    max_held_bytes: int = _setting(
        536_870_912,
        whole(1),
        "Bytes of requests, contexts and outputs in memory, of all together (512 MiB). New requests get three quarters "
        "(more: 429), one always. When all is full, a response that has said more than 1 MiB ends as `incomplete`.",
        group="Limits",
    )
    max_json_depth: int = _setting(64, whole(1), "How deep the JSON of a request may nest. More: 400.", group="Limits")
    request_seconds: float = _setting(
        120.0,
        amount(),
        "How long the head of a request may take to come, and its body. Longer: the connection is closed, or 408.",
        group="Limits",
    )
    max_input_items: int = _setting(
        10_000, whole(1), "Items in the `input` of one request. More: 400 `array_above_max_length`.", group="Limits"
    )
    max_context_items: int = _setting(
        20_000,
        whole(1),
        "Items that a model is given, with all that came before. More: 400 `context_length_exceeded`.",
        group="Limits",
    )
    max_context_bytes: int = _setting(
        67_108_864,
        whole(1),
        "Bytes of what a request continues (64 MiB). More: 400 `context_length_exceeded`.",
        group="Limits",
    )
    max_output_bytes: int = _setting(
        67_108_864,
        whole(1),
        "Bytes of events of one response (64 MiB). More: it ends as `incomplete`, for `max_output_tokens`.",
        group="Limits",
    )
    response_seconds: float = _setting(
        3600.0, amount(), "How long a worker works on one response. Longer: it ends as `failed`.", group="Limits"
    )
    foreground_limit: int = _setting(
        256, whole(1), "Responses worked on at once while their callers wait. More: 429.", group="Limits"
    )
    max_streams: int = _setting(
        4096, whole(1), "Streams, sockets and creates waited for that are open at once. More: 429.", group="Limits"
    )
    max_streams_per_key: int = _setting(2048, whole(1), "The same, of one key. More: 429.", group="Limits")
    max_queued_per_key: int = _setting(
        1000, whole(0), "Background responses of a key's tenant that are open at once. More: 429.", group="Limits"
    )
    requests_per_minute: int = _setting(
        0, whole(0), "Responses that a key may begin per minute and process; 0 is no limit. More: 429.", group="Limits"
    )
    tokens_per_minute: int = _setting(
        0, whole(0), "Tokens that a key may use per minute and process; 0 is no limit. More: 429.", group="Limits"
    )

    database: str = _setting(
        "sqlite:///antiphon.db", DATABASE, "Where responses are kept; `sqlite://` is memory.", group="Keeping"
    )
    bell: str | None = _setting(
        None,
        BELL,
        "What tells nodes of each other's news. Without: PostgreSQL itself, or nothing for SQLite's one node.",
        group="Keeping",
    )
    durability: Literal["full", "process"] = _setting(
        "full",
        one_of("full", "process"),
        "What was shown survives: `full` a power cut, `process` a killed process; the second is cheaper.",
        group="Keeping",
    )
    seal_keys: tuple[str, ...] = _setting(
        (),
        SEAL_KEYS,
        "Keys for what callers get encrypted; the first seals, all open. Without: one in a file beside the database.",
        group="Keeping",
        secret=True,
    )
    retention_days: float = _setting(
        30.0,
        DAYS,
        "How long a response is kept from its create on; 0 is for ever. Conversations have no limit.",
        group="Keeping",
    )
    tenant_retention_days: Mapping[str, float] = _setting(
        MappingProxyType({}),
        TENANT_DAYS,
        "The same for single tenants: `tenant:days,tenant:days`, in antiphon.toml a table.",
        group="Keeping",
    )
    tail_bytes: int = _setting(
        8_388_608, whole(0), "Memory for the newest events of running responses, for all together.", group="Keeping"
    )

    upstream: str | None = _setting(
        None, HTTP_URL, "The model server to ask, with its `/v1`. Without one, the embedded model.", group="The model"
    )
    upstream_key_env: str | None = _setting(
        None, TEXT, "The name of the environment variable that holds the model server's key.", group="The model"
    )
    upstream_connect_seconds: float = _setting(
        10.0, amount(), "How long reaching the model server may take.", group="The model"
    )
    upstream_idle_seconds: float = _setting(
        300.0, amount(), "How long the model server may be silent in an answer.", group="The model"
    )
    upstream_protocol: Literal["auto", "chat_completions", "responses"] = _setting(
        "chat_completions",
        one_of(*PROTOCOLS),
        "How the model server is asked; `auto` tries once which it knows.",
        group="The model",
    )
    upstream_retries: int = _setting(
        2,
        whole(0),
        "How often the model server is asked again before it has said anything: "
        "unreachable, overloaded (429) or failed (5xx).",
        group="The model",
    )
    upstreams: Mapping[str, Upstream] = _setting(
        MappingProxyType({}),
        UPSTREAMS,
        "Several model servers, in antiphon.toml as tables `[upstreams.NAME]` (see below), in the variable as JSON. "
        "With `upstream` too, that one is asked for the models that none of them has.",
        group="The model",
        secret=True,
    )
    model_file: Path | None = _setting(None, PATH, "Another GGUF file for the embedded model.", group="The model")

    workers: int = _setting(
        4, whole(0), "Background responses worked on at once by this process; 0 leaves them to others.", group="Work"
    )
    orphan_grace_seconds: float = _setting(
        5.0,
        amount(zero=True),
        "How long a stored response goes on when nobody follows it; on several nodes, more than `poll_seconds`.",
        group="Work",
    )
    turn_wait_seconds: float = _setting(
        300.0, amount(), "How long a caller's response waits for an earlier one of its conversation.", group="Work"
    )
    lease_seconds: float = _setting(
        10.0, amount(), "How long a worker that is not heard of keeps its response.", group="Work"
    )
    lease_renew_seconds: float = _setting(
        1.0, amount(), "How often a worker renews that; with `poll_seconds` less than `lease_seconds`.", group="Work"
    )
    poll_seconds: float = _setting(
        1.0, amount(), "How often a worker looks for work, and a follower for events, unasked.", group="Work"
    )
    max_attempts: int = _setting(
        3, whole(1), "How many workers may die of a response before it has failed.", group="Work"
    )

    upstream_key: str | None = field(default=None, repr=False)  # what upstream_key_env names, found when loading

    def __post_init__(self) -> None:
        if set(self.api_keys.values()) & set(self.admin_keys.values()):
            raise BadSetting("admin_keys: one of them is in api_keys too; expected a key of its own.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadSetting("tls_cert: TLS needs tls_cert and tls_key; one of them is missing.")
        if self.poll_seconds + self.lease_renew_seconds >= self.lease_seconds:
            raise BadSetting(
                f"lease_seconds: {self.lease_seconds:g} is too short for lease_renew_seconds "
                f"({self.lease_renew_seconds:g}) and poll_seconds ({self.poll_seconds:g}); expected more than both."
            )
        if self.upstream is not None and any("*" in each.models for each in self.upstreams.values()):
            raise BadSetting("upstream: one of upstreams has models = ['*'] already; expected one of the two.")

    def check_reach(self, *, keys_kept: bool) -> None:
        """Raise BadSetting for a server that others can reach and that asks nobody for a key.

        keys_kept: whether there are keys in the database.
        """
        if not (keys_kept or self.api_keys or self.admin_keys or self.insecure_no_auth or is_loopback(self.host)):
            raise BadSetting(
                f"host: {self.host!r} can be reached by others and there are no API keys; expected some "
                f"(`antiphon keys create`, or api_keys), a loopback address, or insecure_no_auth."
            )

    @property
    def postgres(self) -> bool:
        """Whether the database is PostgreSQL, which any number of nodes may share."""
        return self.database.startswith("postgres")

    def expires_at(self, tenant: str, created_at: int, days: float | None = None) -> float | None:
        """The time from which on a tenant's response that was created then is unknown; None if it is kept for ever.

        days: for how long, if its key has a value of its own.
        """
        if days is None:
            days = self.tenant_retention_days.get(tenant, self.retention_days)
        return created_at + days * 86_400 if days else None

    @property
    def database_path(self) -> str:
        """The file of a SQLite database, or ':memory:'; of PostgreSQL where it is, without a password."""
        if self.postgres:
            parts = urlsplit(self.database)
            return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        return self.database.removeprefix("sqlite://").removeprefix("/") or ":memory:"

    @property
    def model_servers(self) -> tuple[Upstream, ...]:
        """All upstreams in their order; the one of `upstream` is the last, for what the others do not have."""
        if self.upstream is None:
            return tuple(self.upstreams.values())
        shorthand = Upstream(
            name="upstream",
            url=self.upstream,
            key=self.upstream_key,
            models=("*",),
            protocol=self.upstream_protocol,
            connect_seconds=self.upstream_connect_seconds,
            idle_seconds=self.upstream_idle_seconds,
            retries=self.upstream_retries,
        )
        return (*self.upstreams.values(), shorthand)

    @classmethod
    def table(cls) -> tuple[Setting, ...]:
        """Every setting, in the order of the page."""
        return tuple(
            Setting(
                name=each.name,
                default=each.default if each.default_factory is MISSING else each.default_factory(),
                **each.metadata,
            )
            for each in fields(cls)
            if each.metadata
        )

    @classmethod
    def load(cls, flags: Mapping[str, Any], environ: Mapping[str, str], config: str | Path | None = None) -> Settings:
        """The settings as flags, environment and file say, in this order; the first that names a setting decides.

        flags: values by setting name; None is a flag that was not given.
        config: the TOML file; None is antiphon.toml in the working directory, where there is one.
        An empty variable is as good as none. Raises BadSetting, which names the setting, where it stands, its value and
        what was expected.
        """
        table = {setting.name: setting for setting in cls.table()}
        path, from_file = _read_config(config)
        for key in from_file:
            if key not in table:
                raise BadSetting(f"{path}: {key!r} is not a setting{_nearest(key, table)}")
        values: dict[str, Any] = {}
        for name, setting in table.items():
            if flags.get(name) is not None:
                values[name] = _read(setting, flags[name], where=setting.flag)
            elif environ.get(setting.variable, "").strip():
                values[name] = _read(setting, environ[setting.variable], where=setting.variable)
            elif name in from_file:
                values[name] = _read(setting, from_file[name], where=f"{path}: {name}")
        if "upstreams" in values:
            values["upstreams"] = with_keys(values["upstreams"], environ)
        return cls(**values, upstream_key=_named_key(values.get("upstream_key_env"), environ))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def misspelled(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that look like a setting and are none, each with the one that was probably meant.

    Not an error: the environment is shared, and Kubernetes fills it with variables named after a service.
    """
    known = {setting.variable for setting in Settings.table()}
    strangers = (name for name in environ if name.startswith(PREFIX) and name not in known)
    meant = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in strangers}
    return {name: nearest[0] for name, nearest in meant.items() if nearest}


def page() -> str:
    """The settings as Markdown: a table for each group."""
    groups: dict[str, list[Setting]] = {}
    for setting in Settings.table():
        groups.setdefault(setting.group, []).append(setting)
    return "\n\n".join(f"## {group}\n\n{_markdown(settings)}" for group, settings in groups.items())


def _markdown(settings: Iterable[Setting]) -> str:
    lines = ["| Setting | Default | Meaning | Values |", "|---|---|---|---|"]
    for setting in settings:
        secret = " No flag: other users of a machine can read those." if setting.secret else ""
        lines.append(
            f"| `{setting.name}`<br>`{setting.variable}` | {_shown(setting.default)} "
            f"| {setting.help}{secret} | {setting.kind.expected} |"
        )
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if default is None or default == {}:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _read(setting: Setting, value: Any, *, where: str) -> Any:
    found = "the value" if setting.secret else repr(value)
    try:
        return setting.kind.read(value)
    except Refused as refused:
        raise BadSetting(f"{where}: {found} is refused: {refused}; expected {setting.kind.expected}.") from None
    except (ValueError, KeyError, OverflowError):
        raise BadSetting(f"{where}: {found} is not {setting.kind.expected}.") from None


def _read_config(config: str | Path | None) -> tuple[Path, dict[str, Any]]:
    path = CONFIG if config is None else Path(config)
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if config is None:
            return path, {}
        raise BadSetting(f"{path}: there is no such file.") from None
    except OSError as problem:
        raise BadSetting(f"{path}: cannot be read: {problem.strerror}.") from problem
    except ValueError as problem:  # not TOML, or not UTF-8
        raise BadSetting(f"{path}: is not TOML: {problem}.") from problem


def _named_key(variable: str | None, environ: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    key = environ.get(variable, "").strip()
    if key and key.isprintable():  # it is sent in a header
        return key
    raise BadSetting(
        f"upstream_key_env: the variable {variable} is not set, empty, or more than a line; "
        "expected the model server's key."
    )


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."
