"""The tools that the client runs, one file for each type, and the table of them in toolbox.py."""
