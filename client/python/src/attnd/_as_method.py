"""Turns operations into methods that keep the operation's name, signature and docstring."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Optional, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def as_method(method: F, operation: Callable[..., Any], owner: str, name: Optional[str] = None, gives: Any = None) -> F:
    """Gives `method` the name, signature and docstring of the operation that it runs. `name` and `gives` (the return
    type) replace the operation's own."""
    functools.update_wrapper(method, operation)
    method.__name__ = name or operation.__name__
    method.__qualname__ = f"{owner}.{method.__name__}"
    # The operation's first parameter is its core, which becomes self; Operation[T] becomes T.
    signature = inspect.signature(operation)
    parameters = list(signature.parameters.values())
    parameters[0] = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = gives if gives is not None else str(signature.return_annotation)[len("Operation[") : -1]
    annotations = {**operation.__annotations__, "return": given}
    del annotations[next(iter(signature.parameters))]
    method.__annotations__ = annotations
    vars(method)["__signature__"] = signature.replace(parameters=parameters, return_annotation=given)
    return method
