"""The same model as hf_generate_worker.py's in CTranslate2: answers {"run": COMPUTE_TYPE, "batch": B, ...} with the
milliseconds of a call and its tokens, as many as asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from typing import Any

import ctranslate2
import hf_generate_worker
import hf_worker
from ctranslate2.converters import transformers as loaders


def convert(model: Any, folder: str) -> None:
    """As CTranslate2's own converter does, but for the vocabulary, which a model of random weights has none of."""
    loader = loaders.T5Loader()
    spec = loader.get_model_spec(model)
    names = [token(i) for i in range(model.config.vocab_size)]
    loader.set_vocabulary(spec, names)
    spec.config.bos_token = spec.config.decoder_start_token = names[model.config.decoder_start_token_id]
    spec.config.eos_token = names[model.config.eos_token_id]
    spec.config.unk_token = names[-1]
    spec.validate()
    spec.optimize(quantization="float32")
    spec.save(folder)


def token(number: int) -> str:
    return f"token{number}"


def number(name: str) -> int:
    return int(name.removeprefix("token"))


def run(translator: Any, batch: int, tokens: int, beams: int, new: int) -> dict[str, Any]:
    texts = [[token(i) for i in row] for row in hf_worker.inputs(batch, tokens).tolist()]
    lengths = {"max_input_length": 0, "min_decoding_length": new, "max_decoding_length": new}
    start = time.perf_counter()
    made = translator.translate_batch(texts, beam_size=beams, **lengths)
    end = time.perf_counter()
    found = [[number(name) for name in one.hypotheses[0]] for one in made]
    if any(len(row) != new for row in found):
        sys.exit(f"it made {[len(row) for row in found]} tokens, asked for {new}")
    return {"whole_ms": (end - start) * 1e3, "tokens": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, required=True)
    threads = parser.parse_args().threads
    translators: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        convert(hf_generate_worker.make_model(), folder)
        for line in sys.stdin:
            asked = json.loads(line)
            kind = asked.pop("run")
            if kind not in translators:
                settings = {"compute_type": kind, "inter_threads": 1, "intra_threads": threads}
                translators[kind] = ctranslate2.Translator(folder, "cpu", **settings)
            print(json.dumps(run(translators[kind], **asked)), flush=True)


if __name__ == "__main__":
    main()
