"""The client: every operation of an API description as a method, checked before it is sent, streams that go on."""

from antiphon.client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
