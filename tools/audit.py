"""What the locked packages bring with them: licences, and known vulnerabilities. `make audit`; in part, `make check`.

Licences are read from what is installed. pip-audit asks a service for the vulnerabilities; without it, or without a
network, that half is left out, and said so. `make check` only tells them: what is published tomorrow about a package
must not break what passed today.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

LOCKS = [*sorted(Path("requirements").glob("*.lock")), Path("src/antiphon/engine/models/model.lock")]
_PACKAGE = re.compile(r"^([A-Za-z0-9][\w.-]*)==", re.MULTILINE)
_LICENSE = re.compile(r"^License :: (?:OSI Approved :: )?")
# What cannot stand beside the Apache licence in what others build on this, or may not be used for every purpose.
REFUSED = re.compile(
    r"GPL|GNU .*General Public|SSPL|Server Side Public|BUSL|Business Source|Elastic|Commons Clause|Non-?Commercial"
    r"|Proprietary|CC-BY-N",
    re.IGNORECASE,
)
_SECONDS = 300.0
_CHECK_SECONDS = 8.0
_OFFLINE = re.compile(
    r"ConnectionError|connection error|Max retries exceeded|Timeout|resolve|unreachable", re.IGNORECASE
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pip_audit", help="the program")
    parser.add_argument("--check", action="store_true", help="quickly: tell only what is wrong, fail for licences only")
    options = parser.parse_args()
    wrong = licences(quiet=options.check)
    known = vulnerabilities(options.pip_audit, seconds=_CHECK_SECONDS if options.check else _SECONDS)
    print("\n".join([*wrong, *known]) or "Nothing is wrong with the locked packages.")
    return 1 if wrong or (known and not options.check) else 0


def licences(*, quiet: bool) -> list[str]:
    """The licences that are refused, and packages that tell none. Prints those of all, unless it is to be quiet."""
    wrong = []
    names = {name for lock in LOCKS for name in _PACKAGE.findall(lock.read_text())}
    for name in sorted(names, key=str.lower):
        try:
            told = licence(distribution(name))
        except PackageNotFoundError:  # for another platform or Python
            told = None
        if not quiet:
            print(f"{name:28} {'not installed here' if told is None else told or 'tells none'}")
        if told is not None and (not told or REFUSED.search(told)):
            wrong.append(f"{name}: the licence is {told!r}, which is refused.")
    return wrong


def licence(package: Distribution) -> str:
    """As the package tells it, in the newest of the three ways that it does."""
    metadata = package.metadata
    classifiers = [each for each in metadata.get_all("Classifier", []) if each.startswith("License :: ")]
    named = ", ".join(_LICENSE.sub("", each) for each in classifiers)
    expression, text = (" ".join(metadata.get_all(name, [])).strip() for name in ("License-Expression", "License"))
    return expression or named or text.partition("\n")[0]


def vulnerabilities(pip_audit: str, *, seconds: float) -> list[str]:
    """What pip-audit knows against the locked versions; nothing, and said so, where it cannot be asked in time."""
    flags = [flag for lock in LOCKS for flag in ("--requirement", str(lock))]
    command = [pip_audit, "--disable-pip", "--require-hashes", "--progress-spinner", "off", *flags]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        print("Vulnerabilities were not looked for: pip-audit is not installed, `make audit` does that.")
        return []
    except subprocess.TimeoutExpired:
        print(f"Vulnerabilities were not looked for: the service did not answer within {seconds:g} seconds.")
        return []
    if done.returncode and _OFFLINE.search(done.stderr) and not done.stdout.strip():
        print("Vulnerabilities were not looked for: the service cannot be reached.")
        return []
    print(done.stderr.strip() or done.stdout.strip())
    return [done.stdout.strip() or "pip-audit failed."] if done.returncode else []


if __name__ == "__main__":
    sys.exit(main())
