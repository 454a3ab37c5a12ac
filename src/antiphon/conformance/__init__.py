"""A suite that kills a server of the Responses API at the worst moments, and reads afterwards what it has kept.

    python -m antiphon.conformance --base-url URL --start 'command that starts the server'

It plays the model's server (upstream.py), the clients (watcher.py) and whoever kills (site.py). A schedule says what is
killed, and when (schedule.py); a trial takes one response through it (trial.py); checks.py says what must hold.
It knows a server by its API and its processes alone, so any server can be measured.
"""

from antiphon.conformance.run import Finding, Suite
from antiphon.conformance.schedule import FAULTS, MODES, POINTS, Cell, Schedule, draw, matrix
from antiphon.conformance.site import Node, Site
from antiphon.conformance.upstream import Upstream

__all__ = [
    "FAULTS",
    "MODES",
    "POINTS",
    "Cell",
    "Finding",
    "Node",
    "Schedule",
    "Site",
    "Suite",
    "Upstream",
    "draw",
    "matrix",
]
