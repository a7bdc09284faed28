"""Objects that are put into a model when it is attached, and that are undone in copies of the model.

deepcopy() and pickle find these objects in the dicts of modules and configs, and replace them by what their __reduce__
returns: what was there before. So a copy of an attached model does not depend on attnd.
"""

from __future__ import annotations

import types
from typing import Any, Callable, Tuple, Type

NAME = "attnd"


class Implementation(str):
    """The name of attnd's attention function in a model's config. A copy has the previous implementation's name."""

    __slots__ = ("before", "users")

    before: Any
    users: int  # number of attached encoders with this config

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
    """Replaces a method of one module. A copy has the method of the module's class."""

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
        # The copy of the module exists by then, but its dict is still empty: getattr finds the class's method.
        return getattr, (self.module, self.name)


class Mark:
    """Marks a module as attached, as one of its attributes. In a copy the attribute is None."""

    NAME = "_attnd"

    def __init__(self, handle: Any, takes_float_mask: bool) -> None:
        self.handle = handle
        self.takes_float_mask = takes_float_mask

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(None), ()
