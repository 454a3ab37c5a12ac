"""Write the stub that types the client: `python tools/stubs.py`, or with --check only say whether it is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from antiphon.cli.stubs import packaged

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "src" / "antiphon" / "client" / "operations.pyi"


def main(arguments: list[str]) -> int:
    fresh = packaged()
    if STUB.exists() and STUB.read_text(encoding="utf-8") == fresh:
        return 0
    if "--check" in arguments:
        print(f"{STUB.relative_to(ROOT)} is stale; `python tools/stubs.py` writes it anew.", file=sys.stderr)
        return 1
    STUB.write_text(fresh, encoding="utf-8")
    print(f"{STUB.relative_to(ROOT)} is written anew.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
