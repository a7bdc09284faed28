"""Hugging Face encoders whose self-attention an attnd server computes, in another process and exactly.

Example:
    >>> import attnd.transformers, torch
    >>> handle = attnd.transformers.attach(model)  # ATTND_SERVER, or else a server of its own
    >>> with torch.inference_mode():
    ...     hidden = model(input_ids=ids).last_hidden_state
    >>> handle.detach()

Needs torch and transformers 5.15 or newer, which are imported by the first call and not with this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional

from attnd.transformers._refused import Refused

if TYPE_CHECKING:
    from attnd.transformers._check import Difference
    from attnd.transformers._handle import Handle

__all__ = ["Refused", "attach", "check", "detach"]


def attach(model: Any, target: Any = None, *, min_length: Optional[int] = None, timeout: float = 60.0) -> Handle:
    """Lets attnd compute the self-attention of a model's encoders, until the handle is detached.

    The weights stay as they are; ``state_dict()`` and ``save_pretrained()`` give what they gave before. No tensor of
    [query_length, key_length] is made any more: neither the bias nor the 4-D mask nor the scores. A deep copy, and what
    is pickled or saved, is not attached, and computes as the model did before. Weights may change after this (``to``,
    ``load_state_dict``, in place): each forward pass looks at the bias tables, and uploads those that are new.

    Several models may be attached, to one server or to several, and may run on several threads at once.

    Args:
        model: a T5, mT5, umT5, Switch or Pop2Piano model of transformers, in the CPU's memory, float32, float16 or
            bfloat16. Of an encoder-decoder model the encoder is attached, and the decoder stays local as it is. Of a
            model that holds such encoders as parts, all of them are.
        target: the server: a gRPC name ("unix:///run/attnd/attnd.sock", "host:50051"), or an :class:`attnd.Client` or
            :class:`attnd.LocalServer`, which stay the caller's to close. None: ATTND_SERVER in the environment, or else
            a private server (:func:`attnd.local_server`) that ends with the handle.
        min_length: sequences of fewer tokens than this are computed locally (sdpa, with the true bias), since a call
            would take longer. 0: none are. None: measured now, within about half a second.
        timeout: of each call, in seconds.

    Returns:
        A context manager that detaches at its end; ``print`` of it says what was done.

    Raises:
        Refused: the model has no encoder that can be attached, is attached already, is not in the CPU's memory, or has
            ``output_attentions`` set; the message says which. Later, from a forward pass: gradients, dropout, 4-D
            masks, ``output_attentions``.
        FailedPrecondition: the server has no such bias table and refuses its upload; the message says what to load.
        Unavailable, NotFound: no server was reached, or there is no program to start one from.
        ImportError: torch or transformers is missing or too old.

    Example:
        >>> with attnd.transformers.attach(model, min_length=0) as handle, torch.no_grad():
        ...     _ = model(input_ids=ids)
        >>> print(handle)
        detached from ...
    """
    from attnd.transformers import _libraries  # noqa: PLC0415 - torch is imported on use

    _libraries.check()
    from attnd.transformers import _attach  # noqa: PLC0415

    return _attach.attach(model, target, min_length=min_length, timeout=timeout)


def detach(model: Any) -> None:
    """Undoes :func:`attach`: the model computes its attention by itself again, as before.

    Raises:
        Refused: the model is not attached.

    Example:
        >>> _ = attnd.transformers.attach(model, min_length=0)
        >>> attnd.transformers.detach(model)
    """
    from attnd.transformers import _libraries  # noqa: PLC0415

    _libraries.check()
    from attnd.transformers import _attach  # noqa: PLC0415

    _attach.handle_of(model).detach()


def check(
    model: Any, inputs: Mapping[str, Any], target: Any = None, *, repeats: int = 3, quiet: bool = False
) -> Difference:
    """Runs the model's encoders attached and not, and prints the largest difference and both times.

    A model that is not attached is attached for the time of this, with ``min_length=0``. Not to be called while other
    threads run the model.

    Args:
        model: as for :func:`attach`.
        inputs: of the encoder, as a tokenizer gives them: "input_ids" or "inputs_embeds", and "attention_mask" if
            there is padding. Others, such as "decoder_input_ids", are left out.
        target: as for attach, if the model is not attached.
        repeats: passes of each kind, in turns; the fastest of each counts.
        quiet: print nothing.

    Returns:
        The largest difference over all positions that the mask keeps, what it is relative to, and both times.

    Raises:
        Error: as attach.

    Example:
        >>> difference = attnd.transformers.check(model, {"input_ids": ids}, quiet=True)
        >>> difference.largest < 1e-3
        True
    """
    from attnd.transformers import _libraries  # noqa: PLC0415

    _libraries.check()
    from attnd.transformers import _check  # noqa: PLC0415

    return _check.check(model, inputs, target, repeats=repeats, quiet=quiet)
