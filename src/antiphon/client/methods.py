"""Operations as methods: what a client has, and what any other way to call the same operations has too."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from antiphon.errors import UnknownOperation

if TYPE_CHECKING:
    from antiphon.spec import Document, Operation


class Methods(abc.ABC):
    """Every operation of `document` as a method that calls it by its id."""

    document: Document

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all methods, each one operation of the API description."""
        from antiphon.spec.names import method_name

        return tuple(sorted(method_name(operation_id) for operation_id in self.document.operations))

    @abc.abstractmethod
    def call(self, operation: str, /, **arguments: Any) -> Any:
        """Call an operation by its operationId, or any other spelling of its name."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):  # none of ours: Python itself asks, and is not to load anything for it
            raise AttributeError(name)
        try:
            operation = self.document.operation(name)
        except UnknownOperation as error:
            raise AttributeError(error.message, name=name, obj=self) from error
        return self._method(operation)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.operations]

    def _method(self, operation: Operation) -> Callable[..., Any]:
        from antiphon.client.manual import page

        def method(**arguments: Any) -> Any:
            return self.call(operation.id, **arguments)

        method.__name__ = method.__qualname__ = operation.name
        method.__doc__ = page(operation)
        return method
