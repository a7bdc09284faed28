#include "client/attnctl/command.h"

namespace attnd::ctl {

const std::vector<Command>& Commands() {
  static const auto* const commands = new std::vector<Command>{
      {"attend",
       "",
       "compute attention over the tensors of a file",
       "Reads q [batch, heads, queries, dim], k [batch, key heads, keys, dim] and v [batch, key heads, keys, value "
       "dim]\n"
       "(F32, F16 or BF16; key heads may divide heads) from a safetensors file and writes o [batch, heads, queries,\n"
       "value dim] to another. Other tensors in the file are left alone.\n\n"
       "  attnctl attend --model t5-tiny --input layer.safetensors --output o.safetensors\n"
       "  attnctl attend --model t5-tiny --input layer.safetensors --compare o_hf --tolerance 1e-4",
       {"model", "input", "output", "table", "version", "mask", "scale", "query_offset", "query_lengths", "key_lengths",
        "layout", "output_dtype", "lse", "compare", "tolerance"},
       0,
       0,
       Attend},
      {"bias",
       "MODEL",
       "draw the bias of a window of queries and keys",
       "The grid shows which bucket each query and key are in, u0, u1, ...; with --head, a heat map shows the "
       "values.\n\n"
       "  attnctl bias book --queries 6\n"
       "  attnctl bias t5-tiny --queries 512 --head 3 --format svg --out head3.svg\n"
       "  attnctl bias book --explain 5,2",
       {"queries", "keys", "query_start", "key_start", "table", "version", "mask", "head", "format", "out", "explain"},
       1,
       1,
       Bias},
      {"models list", "", "list the loaded models", "", {"json"}, 0, 0, ListModels},
      {"models show", "MODEL", "describe a model and its tables", "", {"version", "json"}, 1, 1, ShowModel},
      {"models load",
       "PATH",
       "load a model from the server's model root",
       "PATH is a Hugging Face checkpoint folder, a GGUF file or a JSON table, relative to the server's --model_root.",
       {"name", "json"},
       1,
       1,
       LoadModel},
      {"models reload",
       "MODEL",
       "read a model again from where it was loaded",
       "If that fails the loaded version stays.",
       {"json"},
       1,
       1,
       ReloadModel},
      {"models unload",
       "MODEL",
       "remove a model",
       "Calls that are being computed finish with it.",
       {},
       1,
       1,
       UnloadModel},
      {"models upload",
       "MODEL PATH",
       "send a model's tables from this machine",
       "PATH is a Hugging Face checkpoint folder, a GGUF file or a JSON table of this machine. Its tables make a new "
       "model,\n"
       "or with --replace new versions of an uploaded one.\n\n"
       "  attnctl models upload mine tables.json",
       {"table", "replace", "json"},
       2,
       2,
       UploadModel},
      {"info",
       "",
       "show the server's version, kernel, threads and limits",
       "With --verbose also what its speed rests on, and whether that is in force; without it only what is not.",
       {"verbose", "json"},
       0,
       0,
       Info},
  };
  return *commands;
}

}  // namespace attnd::ctl
