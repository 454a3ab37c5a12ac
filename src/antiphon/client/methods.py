"""Operations as methods: what a client has, and what any other way to call the same operations has too."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from antiphon.errors import UnknownOperation
from antiphon.spec.names import keyword

if TYPE_CHECKING:
    from inspect import Signature
    from typing import Self

    from antiphon.spec import Document, Operation


class Methods(abc.ABC):
    """Every operation of `document` as a method that calls it by its id."""

    document: Document

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all methods, each one operation of the API description."""
        return tuple(sorted(each.name for each in self.document.operations.values()))

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
        return Method(operation, self.call)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.operations]


class Method:
    """One operation, to be called with keywords. `help`, `repr` and completion are told what it takes when they ask."""

    def __init__(self, operation: Operation, call: Callable[..., Any]) -> None:
        self.__name__ = self.__qualname__ = operation.name
        self._operation = operation
        self._call = call

    def __call__(self, *unnamed: Any, **arguments: Any) -> Any:
        if unnamed:
            names = [keyword(each.name) for each in self._operation.parameters]
            example = f": {self.__name__}({names[0]}=...)" if names else ""
            raise TypeError(f"{self.__name__}() takes its arguments by name{example}")
        return self._call(self._operation.id, **arguments)

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """Itself. What has this is for `help` a function, shown with its signature, and not just a value."""
        return self

    def __repr__(self) -> str:
        from antiphon.client.manual import shown

        return shown(self._operation)

    @property
    def __signature__(self) -> Signature:
        from antiphon.client.manual import signature

        return signature(self._operation)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        from antiphon.client.manual import page

        return page(self._operation)
