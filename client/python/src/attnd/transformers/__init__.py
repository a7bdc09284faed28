"""Lets an attnd server compute the attention of Hugging Face models of the T5 family, exactly.

Example:
    >>> import attnd.transformers, torch
    >>> handle = attnd.transformers.attach(model)  # ATTND_SERVER, or else a server of its own
    >>> tokens = model.generate(input_ids=ids, num_beams=4, max_new_tokens=8)
    >>> handle.detach()

Needs torch and transformers 5.15 or newer, which are imported at the first call and not with this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional

from attnd.transformers._refused import Refused

if TYPE_CHECKING:
    from attnd.transformers._check import Difference
    from attnd.transformers._handle import Handle

__all__ = ["Refused", "attach", "check", "detach"]


def attach(
    model: Any,
    target: Any = None,
    *,
    min_length: Optional[int] = None,
    min_cached_tokens: Optional[int] = None,
    replay_bytes: int = 0,
    decoder: bool = True,
    timeout: float = 60.0,
) -> Handle:
    """Lets attnd compute a model's attention until the handle is detached.

    For an encoder, attnd computes the self-attention. No tensor of [query_length, key_length] is created any more:
    neither the bias nor the 4-D mask nor the scores.

    For a decoder, attnd computes attention in ``generate`` (greedy, sampling, beams, assisted) and in every forward
    pass with a cache from ``Handle.cache``: the cross attention, whose keys and values are projected and kept once per
    source instead of once per beam, and the self-attention once the cache has ``min_cached_tokens``. Keys and values
    are then kept in sessions of the server. Without such a cache a decoder computes as before.

    The weights are not changed; ``state_dict()`` and ``save_pretrained()`` return what they returned before. A deep
    copy, a pickled or a saved model is not attached and computes as the model did before. Weights may change later
    (``to``, ``load_state_dict``, in place), but not during a generation: the bias tables are checked, and changed ones
    are uploaded.

    Several models may be attached, to one server or to several, and may run on several threads at once.

    Args:
        model: a T5, mT5, umT5, Switch or Pop2Piano model of transformers; for LongT5, UDOP and Pix2Struct only the
            decoder is attached. It must be in the CPU's memory, in float32, float16 or bfloat16. If a model contains
            several such encoders and decoders, all of them are attached.
        target: the server: a gRPC name ("unix:///run/attnd/attnd.sock", "host:50051"), or an :class:`attnd.Client` or
            :class:`attnd.LocalServer`, which the caller closes. None: ATTND_SERVER in the environment, or else a
            private server (:func:`attnd.local_server`) that ends with the handle.
        min_length: an encoder's sequences with fewer tokens than this are computed locally (sdpa, with the same bias),
            because a call would take longer. 0: none are. None: measured now, in about half a second.
        min_cached_tokens: a decoder's self-attention is computed locally until all rows (batch times beams) together
            have this many tokens, or half as many once beams have been reordered, because a step would take longer. 0:
            never locally. None: measured now, in about half a second.
        replay_bytes: if the server or a session is lost, continue the generation on another one with the same tokens:
            self-attention from a copy of at most this many bytes per generation, cross attention from the encoder's
            output. 0: ``generate`` raises an error.
        decoder: False does not attach decoders.
        timeout: of each call and step, in seconds.

    Returns:
        A context manager that detaches at its end; printing it shows what was done.

    Raises:
        Refused: the model has no part that can be attached, is attached already, is not in the CPU's memory, or has
            ``output_attentions`` set; the message says which. Later, from a forward pass: gradients, dropout, 4-D
            masks, ``output_attentions``; from ``generate`` also caches other than DynamicCache.
        FailedPrecondition: the server has no such bias table and refuses its upload; the message says what to load.
        Unavailable, NotFound: no server was reached, or the server's program was not found.
        ResourceExhausted: from ``generate``: the server has no memory for its keys and values.
        ImportError: torch or transformers is missing or too old.

    Example:
        >>> with attnd.transformers.attach(model, min_length=0) as handle:
        ...     _ = model.generate(input_ids=ids, max_new_tokens=4)
        >>> print(handle)
        detached from ...
    """
    from attnd.transformers import _libraries  # noqa: PLC0415 - torch is imported on use

    _libraries.check()
    from attnd.transformers import _attach  # noqa: PLC0415

    return _attach.attach(
        model,
        target,
        min_length=min_length,
        min_cached_tokens=min_cached_tokens,
        replay_bytes=replay_bytes,
        decoder=decoder,
        timeout=timeout,
    )


def detach(model: Any) -> None:
    """Undoes :func:`attach`: the model computes its own attention again.

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
    model: Any,
    inputs: Mapping[str, Any],
    target: Any = None,
    *,
    repeats: int = 3,
    new_tokens: int = 16,
    num_beams: int = 1,
    quiet: bool = False,
) -> Difference:
    """Runs a model with and without attnd, and prints the differences and both times, for its encoders' output and for
    the tokens and logits that it generates.

    If the model is not attached, it is attached during the check, with ``min_length=0`` and ``min_cached_tokens=0``.
    Do not call this while other threads run the model.

    Args:
        model: as for :func:`attach`.
        inputs: a tokenizer's output: "input_ids" or "inputs_embeds", and "attention_mask" if there is padding. Other
            inputs, such as "decoder_input_ids", are passed only to ``generate``.
        target: as for attach, if the model is not attached.
        repeats: runs of each kind, alternating; the fastest of each counts.
        new_tokens: the most tokens that ``generate`` produces; 0: it is not called.
        num_beams: for ``generate``, which does not sample.
        quiet: print nothing.

    Returns:
        The largest difference over all positions that the mask keeps, the magnitude of the values it is relative to,
        and both times; and the same for ``generate``.

    Raises:
        Error: as attach.

    Example:
        >>> difference = attnd.transformers.check(model, {"input_ids": ids}, quiet=True)
        >>> difference.largest < 1e-3, difference.generated.same_tokens
        (True, True)
    """
    from attnd.transformers import _libraries  # noqa: PLC0415

    _libraries.check()
    from attnd.transformers import _check  # noqa: PLC0415

    return _check.check(model, inputs, target, repeats=repeats, new_tokens=new_tokens, num_beams=num_beams, quiet=quiet)
