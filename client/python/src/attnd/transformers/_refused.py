"""The error of what cannot be computed exactly."""

from __future__ import annotations

from attnd.errors import FailedPrecondition


class Refused(FailedPrecondition):
    """What attnd cannot compute for a model as transformers would, and refuses to compute otherwise.

    ``field`` names the model, the argument or the setting, ``expected`` what would do.

    Example:
        >>> try:
        ...     attnd.transformers.attach(torch.nn.Linear(2, 2))
        ... except attnd.transformers.Refused as error:
        ...     print(error.field)
        model
    """
