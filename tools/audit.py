"""What the locked packages bring with them: known vulnerabilities, and licences. `make audit`.

pip-audit asks a service for the vulnerabilities; without a network that half is left out, and said so. Licences are
read from what is installed.
"""

from __future__ import annotations

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
_OFFLINE = re.compile(
    r"ConnectionError|connection error|Max retries exceeded|Timeout|resolve|unreachable", re.IGNORECASE
)


def main() -> int:
    wrong = licences() + vulnerabilities(sys.argv[1])
    print("\n".join(["", *wrong]) if wrong else "\nNothing is wrong with them.")
    return 1 if wrong else 0


def licences() -> list[str]:
    """Prints the licence of each locked package; gives those that are refused, and packages that tell none."""
    wrong = []
    names = {name for lock in LOCKS for name in _PACKAGE.findall(lock.read_text())}
    for name in sorted(names, key=str.lower):
        try:
            told = licence(distribution(name))
        except PackageNotFoundError:  # for another platform or Python
            print(f"{name:28} not installed here")
            continue
        print(f"{name:28} {told or 'tells none'}")
        if not told or REFUSED.search(told):
            wrong.append(f"{name}: the licence is {told!r}, which is refused.")
    return wrong


def licence(package: Distribution) -> str:
    """As the package tells it, in the newest of the three ways that it does."""
    metadata = package.metadata
    classifiers = [each for each in metadata.get_all("Classifier", []) if each.startswith("License :: ")]
    named = ", ".join(_LICENSE.sub("", each) for each in classifiers)
    expression, text = (" ".join(metadata.get_all(name, [])).strip() for name in ("License-Expression", "License"))
    return expression or named or text.partition("\n")[0]


def vulnerabilities(pip_audit: str) -> list[str]:
    """What pip-audit knows against the locked versions."""
    flags = [flag for lock in LOCKS for flag in ("--requirement", str(lock))]
    command = [pip_audit, "--disable-pip", "--require-hashes", "--progress-spinner", "off", *flags]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    except (FileNotFoundError, subprocess.TimeoutExpired) as problem:
        print(f"\nVulnerabilities were not looked for: {problem}")
        return []
    if done.returncode and _OFFLINE.search(done.stderr) and not done.stdout.strip():
        print("\nVulnerabilities were not looked for: the service cannot be reached.")
        return []
    print(f"\n{done.stderr.strip() or done.stdout.strip()}")
    return [done.stdout.strip() or "pip-audit failed."] if done.returncode else []


if __name__ == "__main__":
    sys.exit(main())
