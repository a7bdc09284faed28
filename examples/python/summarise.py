"""Summarises a long text with a model of the T5 family: by itself, and with its attention computed by attnd.

The tokens must be the same. The server is --server, or else ATTND_SERVER, or else a private one. Needs torch and
transformers: pip install "./client/python[transformers]".

    python3 examples/python/summarise.py                    flan-t5-small, which transformers downloads, on a chapter
    python3 examples/python/summarise.py --model FOLDER     any checkpoint: T5, Flan-T5, mT5, umT5, Switch, LongT5
"""

import argparse
import copy
import pathlib
import sys
import time

import torch
import transformers

import attnd.transformers

MODEL = "google/flan-t5-small"
TEXT = pathlib.Path(__file__).with_name("long_text.txt")  # Genesis 1, King James
ROUNDS = 2


class Bytes:
    """ByT5's tokens: 0 is padding, 1 the end, 2 unknown, and a byte is its value plus 3."""

    def encode(self, text):
        return [byte + 3 for byte in text.encode()] + [1]

    def decode(self, tokens):
        return bytes(token - 3 for token in tokens if 3 <= token < 259).decode(errors="replace")


class Words:
    """The checkpoint's own tokens, after the prefix that a T5 trained to summarise expects."""

    def __init__(self, name):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(name)

    def encode(self, text):
        return self.tokenizer("summarize: " + text)["input_ids"]

    def decode(self, tokens):
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def is_byte_level(name, vocab_size):
    """Whether a folder has no tokenizer, and its model's vocabulary is little more than the bytes."""
    folder = pathlib.Path(name)
    return folder.is_dir() and not [*folder.glob("tokenizer*"), *folder.glob("*.model")] and 259 <= vocab_size <= 384


def load(name):
    """Loads the model and its tokenizer."""
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32).eval()
    return model, Bytes() if is_byte_level(name, model.config.vocab_size) else Words(name)


def timed(model, ids, **settings):
    """Returns what generate produces, and its seconds."""
    start = time.perf_counter()
    tokens = model.generate(input_ids=ids, **settings)
    return tokens[0], time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL, help="a checkpoint's folder or name")
    parser.add_argument("--text", default=TEXT, type=pathlib.Path, help="a file in UTF-8")
    parser.add_argument("--beams", default=4, type=int)
    parser.add_argument("--new_tokens", default=64, type=int, help="the most that are generated")
    parser.add_argument("--server", help="unix:///run/attnd/attnd.sock or host:50051")
    flags = parser.parse_args()

    local, words = load(flags.model)
    remote = copy.deepcopy(local)  # so that the two can be timed alternately
    ids = torch.tensor([words.encode(flags.text.read_text(encoding="utf-8"))])
    settings = {"num_beams": flags.beams, "max_new_tokens": flags.new_tokens, "do_sample": False}
    with attnd.transformers.attach(remote, flags.server) as handle:
        rounds = [(timed(local, ids, **settings), timed(remote, ids, **settings)) for _ in range(ROUNDS)]
        print(handle)
    (expected, _), (found, _) = rounds[0]
    local_seconds, remote_seconds = (min(seconds for _, seconds in runs) for runs in zip(*rounds))
    same = all(torch.equal(tokens, expected) for runs in rounds for tokens, _ in runs)

    print(f"\n{ids.shape[1]} tokens summarised in {len(expected) - 1} (beams: {flags.beams})")
    print(f"  by itself:  {words.decode(expected.tolist())!r}")
    print(f"  with attnd: {words.decode(found.tolist())!r}")
    print("  all tokens are the same" if same else "  the tokens are not the same")
    print(
        f"by itself {local_seconds:.2f} s, with attnd {remote_seconds:.2f} s: "
        f"{local_seconds / remote_seconds:.2f} times as fast"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
