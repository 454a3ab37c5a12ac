"""Measures what a server of this build costs, each figure beside a floor that was measured in the same run.

`python -m bench` prints the table; docs/performance.md says how to read it. The model server, the floors and the load
are processes of their own (`python -m bench.model_server`, ...), so that the figures are of the server alone. Knows
Antiphon from outside only: its command line and its HTTP.
"""
