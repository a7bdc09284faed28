"""What is put into a model so that a copy of the model is as if it had not been put there.

deepcopy() and pickle find these objects in the dicts of modules and configs, and take for them what their __reduce__
says: what stood there before. The copy therefore needs nothing of attnd.
"""

from __future__ import annotations

import types
from typing import Any, Callable, Tuple, Type

NAME = "attnd"


class Implementation(str):
    """The name of attnd's attention function in a model's config. A copy has the name of the one before."""

    __slots__ = ("before", "users")

    before: Any
    users: int  # encoders that are attached and have this config

    def __new__(cls: Type[Implementation], before: Any) -> Implementation:
        self = str.__new__(cls, NAME)
        self.before = before
        self.users = 0
        return self

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_same, (self.before,)) if self.before is None else (str, (str(self.before),))


def _same(value: Any) -> Any:
    return value


class Method:
    """Stands for a method of one module. In a copy it is the method of the module's class."""

    def __init__(self, module: Any, name: str) -> None:
        self.module = module
        self.name = name

    @property
    def original(self) -> Callable[..., Any]:
        method: Callable[..., Any] = types.MethodType(getattr(type(self.module), self.name), self.module)
        return method

    def put(self) -> None:
        vars(self.module)[self.name] = self

    def remove(self) -> None:
        if vars(self.module).get(self.name) is self:
            del vars(self.module)[self.name]

    def __reduce__(self) -> Tuple[Any, ...]:
        # The copy of the module exists by then, without anything in its dict: it is the class's method that is found.
        return getattr, (self.module, self.name)


class Mark:
    """An attribute of one module. In a copy it is None."""

    NAME = "_attnd"

    def __init__(self, handle: Any, takes_float_mask: bool) -> None:
        self.handle = handle
        self.takes_float_mask = takes_float_mask

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(None), ()
