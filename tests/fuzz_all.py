"""Everything that is thrown at the server, for as long as is wanted: `make fuzz`.

The parts that read what others write get half of the time, the running server the other half, in rounds that each make
their own requests. Either can be run alone: `python -m tests.fuzz_parts`, `python -m tests.fuzz_api`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="make fuzz")
    parser.add_argument("--seconds", type=float, default=600, help="about; what has begun is ended")
    parser.add_argument("--examples", type=int, default=30, help="requests of each operation, in each round")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="begin as a run that told it")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    failed = run("tests.fuzz_parts", "--seconds", str(options.seconds / 2), "--seed", str(options.seed))
    seed = options.seed
    while not failed:
        failed = run("tests.fuzz_api", "--examples", str(options.examples), "--seed", str(seed))
        seed += 1
        if time.monotonic() > end:
            break
    sys.stderr.write(f"{'Something was' if failed else 'Nothing was'} found; seeds {options.seed} to {seed - 1}\n")
    return failed


def run(module: str, *flags: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *flags], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
