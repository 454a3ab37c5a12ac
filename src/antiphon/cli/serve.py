"""`antiphon serve` and `antiphon work`: the processes that answer. Settings and logging are set up here alone."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Coroutine, Mapping
from types import ModuleType
from typing import Any

from antiphon import logs
from antiphon.cli.talk import add_command, needs, tell
from antiphon.errors import AntiphonError
from antiphon.setting_kinds import FLAG
from antiphon.settings import Setting, Settings, misspelled

# What a process that serves nobody still has of those groups.
_OF_WORKERS = ("stop_seconds", "log_level", "log_format", "spec", "max_output_bytes", "response_seconds")

_COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def add(commands: Any) -> None:
    serving = add_command(
        commands,
        "serve",
        serve,
        usage="antiphon serve [--SETTING VALUE ...] [--config FILE]",
        help="Run a server: the API, its store, and workers for background responses. "
        "It ends on SIGTERM or Ctrl-C\nwhen the requests at hand are answered.",
    )
    _add_settings(serving, lambda setting: True)
    working = add_command(
        commands,
        "work",
        work,
        usage="antiphon work [--SETTING VALUE ...] [--config FILE]",
        help="Work on background responses without serving. "
        "A database file has one process at a time: not while a server runs on it.",
    )
    _add_settings(working, lambda setting: setting.group not in ("Serving", "Limits") or setting.name in _OF_WORKERS)


def _add_settings(parser: ArgumentParser, wanted: Callable[[Setting], bool]) -> None:
    parser.add_argument("--config", metavar="FILE", help="The file with settings; otherwise antiphon.toml, if any.")
    groups: dict[str, Any] = {}
    for setting in filter(wanted, Settings.table()):
        if setting.secret:
            continue
        group = groups.get(setting.group) or groups.setdefault(setting.group, parser.add_argument_group(setting.group))
        text = (setting.help + _default(setting)).replace("%", "%%")
        # The words are checked with all other settings, whether they come from flags, environment or file.
        if setting.kind is FLAG:
            group.add_argument(setting.flag, nargs="?", const="true", metavar="true|false", help=text)
        else:
            group.add_argument(setting.flag, metavar="VALUE", help=text)


def _default(setting: Setting) -> str:
    if setting.default is None:
        return ""
    return f" [{setting.default:g}]" if isinstance(setting.default, float) else f" [{str(setting.default).lower()}]"


def serve(options: Namespace) -> int:
    settings = _begin(options)
    node = _node()
    return _run(node.serve(settings, on_ready=lambda url: tell(_greeting(settings, url))))


def work(options: Namespace) -> int:
    settings = _begin(options)
    node = _node()
    return _run(node.work(settings, on_ready=lambda: tell(_greeting(settings, None))))


def _begin(options: Namespace) -> Settings:
    """The settings, with logging as they want it."""
    for name, meant in misspelled(os.environ).items():
        tell(f"antiphon: the variable {name} is not a setting and has no effect; did you mean {meant}?")
    settings = Settings.load(vars(options), os.environ, options.config)
    logs.set_up(settings.log_level, settings.log_format)
    _trace(os.environ)
    return settings


def _trace(environ: Mapping[str, str]) -> None:
    """Send traces, if the standard variables of OpenTelemetry name a collector."""
    names = [name for name in _COLLECTORS if environ.get(name)]
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not names or off:
        return
    try:
        from antiphon.tracing import set_up
    except ModuleNotFoundError:
        tell(f"antiphon: {names[0]} names a collector; to send it traces, pip install 'antiphon[otel]'")
        return
    set_up()


def _node() -> ModuleType:
    try:
        from antiphon import node
    except ModuleNotFoundError as error:
        raise needs("server", error) from error
    return node


def _greeting(settings: Settings, url: str | None) -> str:
    database = settings.database_path
    return "\n".join(
        [
            f"Antiphon serves {url}" if url else "Antiphon works on what waits in the database",
            f"  model     {_model(settings)}",
            f"  database  {'in memory: gone when this ends' if database == ':memory:' else database}",
        ]
    )


def _model(settings: Settings) -> str:
    servers = ", ".join(dict.fromkeys(server.url for server in settings.model_servers))
    return servers or str(settings.model_file or "embedded")


def _run(running: Coroutine[Any, Any, None]) -> int:
    try:
        if sys.platform == "win32":
            import asyncio

            asyncio.run(running)
        else:
            import uvloop

            uvloop.run(running)
    except OSError as error:
        raise AntiphonError(str(error)) from error
    return 0
