"""The vocabulary: what the API says, read from its OpenAPI document. Knows nothing of HTTP, databases or models."""

from .document import Answer, Body, Document, Operation, Parameter
from .security import Scheme
from .servers import Server
from .validation import Schema

__all__ = ["Answer", "Body", "Document", "Operation", "Parameter", "Schema", "Scheme", "Server"]
