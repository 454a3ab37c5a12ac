"""From an API description to Python stubs: what each operation takes and gives, for type checkers and editors.

The text depends on the document alone. Nothing of it is run: a stub is read by tools, and the client stays as it is.
"""

from __future__ import annotations

from antiphon.stubs.text import clients, stub

__all__ = ["clients", "stub"]
