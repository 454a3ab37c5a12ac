"""Seals: what is handed out and must come back unread and unchanged, such as reasoning and summaries of a context.

Authenticated encryption with AES-256-GCM, tied to the tenant that got it and to what it was sealed as: to anybody else,
and to us in another role, it is as broken as a changed one. Several keys may open, so that keys can be replaced.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from antiphon.errors import BrokenSeal, StoreError
from antiphon.store.whole_file import whole_file

SECRET_CHARACTERS_MIN = 32

_PREFIX = "sealed1."  # the form; a later one can tell it from its own
_NONCE_BYTES = 12
_KEY_ID_BYTES = 4


class Seals:
    """Seals with the first of some secrets, opens with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        derived = [hashlib.sha256(b"antiphon seals\0" + secret.encode()).digest() for secret in keys]
        self._keys = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: AESGCM(key) for key in derived}
        self._newest = next(iter(self._keys))

    def of(self, tenant: str) -> TenantSeals:
        """The seals of one tenant."""
        return TenantSeals(self, tenant)

    def seal(self, bound_to: bytes, content: bytes) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        closed = self._keys[self._newest].encrypt(nonce, content, bound_to)
        return _PREFIX + base64.urlsafe_b64encode(self._newest + nonce + closed).decode()

    def open(self, bound_to: bytes, sealed: str) -> bytes:
        prefix, text = sealed[: len(_PREFIX)], sealed[len(_PREFIX) :]
        try:
            if prefix != _PREFIX:
                raise BrokenSeal
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
            key, rest = self._keys[raw[:_KEY_ID_BYTES]], raw[_KEY_ID_BYTES:]
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], bound_to)
        except (binascii.Error, KeyError, InvalidTag, ValueError) as error:
            raise BrokenSeal from error


@dataclass(frozen=True)
class TenantSeals:
    """What seals for one tenant, and opens what was sealed for it."""

    seals: Seals
    tenant: str

    def seal(self, kind: str, content: bytes) -> str:
        """The content as a text that only `open` of the same tenant, with the same kind, can read."""
        return self.seals.seal(self._bound_to(kind), content)

    def open(self, kind: str, sealed: str) -> bytes:
        """The content of a sealed text. Raises BrokenSeal."""
        return self.seals.open(self._bound_to(kind), sealed)

    def _bound_to(self, kind: str) -> bytes:
        return f"{kind}\0{self.tenant}".encode()


def kept_secret(path: str) -> str:
    """The secret in a file that only its owner can read, made if there is none. Raises StoreError."""
    try:
        if not os.path.lexists(path):
            with suppress(FileExistsError), whole_file(path, replaces=False) as new:
                Path(new).write_text(secrets.token_hex(32), "ascii")
        secret = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: {error}. It holds the key for encrypted content; or set seal_keys.") from error
    if len(secret) < SECRET_CHARACTERS_MIN:
        raise StoreError(f"{path} does not hold a key; move it away to have a new one made, or set seal_keys.")
    return secret
