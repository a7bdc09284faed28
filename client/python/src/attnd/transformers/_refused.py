"""The error for what cannot be computed exactly."""

from __future__ import annotations

from attnd.errors import FailedPrecondition


class Refused(FailedPrecondition):
    """attnd cannot compute exactly what transformers would, and refuses to compute something else.

    ``field`` names the model, the argument or the setting; ``expected`` says what would be accepted.

    Example:
        >>> try:
        ...     attnd.transformers.attach(torch.nn.Linear(2, 2))
        ... except attnd.transformers.Refused as error:
        ...     print(error.field)
        model
    """
