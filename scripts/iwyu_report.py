#!/usr/bin/env python3
"""What include-what-you-use says, file by file, less what this project does not hold itself to; used by scripts/iwyu.sh.

  iwyu_report.py ROOT RAW.txt

Left out:
  - a header that the file's own header, or a header of this project that the file includes, includes in turn, and one
    that is only spelled otherwise (<string_view> for absl/strings/string_view.h);
  - headers behind an umbrella that the file includes: gtest/gtest.h, gmock/gmock.h, grpcpp/grpcpp.h, nlohmann/json.hpp,
    spdlog/spdlog.h, Eigen/Core; message headers behind a service's (x.pb.h, with x.grpc.pb.h);
  - a header for names that the file does not spell: a template's arguments, what a macro or a loop stands for;
  - a standard header said not to be used of which the file spells a name: several headers have std::size_t;
  - generated code and system headers.
Exits with 1 if anything is left.
"""

import collections
import pathlib
import re
import sys

SECTION = re.compile(r"^(\S+) should (add|remove) these lines:$")
INCLUDE = re.compile(r"#include [<\"]([^>\"]+)[>\"](?:\s*// (?:lines .*|(.*)))?")
UMBRELLAS = {
    "gtest/gtest.h": ("gtest/",),
    "gmock/gmock.h": ("gmock/", "gtest/"),
    "grpcpp/grpcpp.h": ("grpcpp/", "grpc/"),
    "nlohmann/json.hpp": ("nlohmann/",),
    "spdlog/spdlog.h": ("spdlog/", "fmt/"),
    "Eigen/Core": ("Eigen/", "src/", "eigen3/"),
}
INSIDE = re.compile(r"^(type_traits|iterator|initializer_list|ext/.*|bits/.*|.*/internal/.*|.*impl/codegen/.*|new)$")
ALIASES = {
    "absl/strings/string_view.h": "string_view",
    "absl/types/optional.h": "optional",
    "stdlib.h": "cstdlib",
    "net/proto2/public/repeated_field.h": "google/protobuf/repeated_field.h",
}
# Names by which a standard header is in use, where include-what-you-use may see them come from another.
SPELLED = {
    "cstddef": r"\b(size_t|byte|ptrdiff_t|nullptr_t|max_align_t)\b",
    "cstring": r"\b(mem(cpy|cmp|set|move)|str(len|error|cmp|ncmp))\b",
    "utility": r"\bstd::(move|pair|forward|swap|exchange|make_pair)\b",
    "string": r"\bstd::(string|to_string)\b",
    "cstdlib": r"\b(abort|exit|_Exit|getenv|setenv|abs|strto\w+|mkdtemp|mkstemp|EXIT_\w+)\b",
    "unistd.h": r"\b(getpid|close|read|write|unlink|isatty|pipe|STD\w+_FILENO|ftruncate|_exit|sysconf|usleep)\b",
}
PROJECT_FOLDERS = (".", "src", "client/include", "proto", "client", "tests/client", "tests/e2e", "tests/kernel", "tests/server")


def included(path: pathlib.Path) -> set[str]:
    return set(re.findall(r"^\s*#\s*include [<\"]([^>\"]+)[>\"]", path.read_text(), re.MULTILINE)) if path.is_file() else set()


def resolve(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """The file in the tree behind a name, which may lead through a room's link in the build folder."""
    path = pathlib.Path(name).resolve()
    if not path.is_relative_to(root) or path.relative_to(root).parts[0].startswith("build"):
        return None
    return path


def own_header(root: pathlib.Path, path: pathlib.Path) -> pathlib.Path | None:
    if path.suffix != ".cc":
        return None
    stem = path.stem.removesuffix("_test")
    candidates = [path.with_name(f"{stem}.h")]
    candidates += [root / folder / i for i in included(path) if pathlib.Path(i).stem == stem for folder in (".", "src")]
    return next((c for c in candidates if c.exists()), None)


def seen(root: pathlib.Path, path: pathlib.Path) -> set[str]:
    """The headers that the file has by itself, by its own header, or by one of this project's that it includes."""
    found = included(path)
    header = own_header(root, path)
    near = [header] if header else []
    near += [root / folder / name for name in found for folder in PROJECT_FOLDERS] + [path.parent / n for n in found]
    for each in near:
        found = found | included(each)
    return found


def spells(text: str, why: str) -> bool:
    names = [name.split("<")[0].split("::")[-1].strip() for name in why.removesuffix("...").split(",")]
    return not why or any(re.fullmatch(r"[A-Za-z]\w*", name) and re.search(rf"\b{name}\b", text) for name in names)


def read(root: pathlib.Path, raw: pathlib.Path) -> dict[pathlib.Path, dict[str, dict[str, str]]]:
    said: dict = collections.defaultdict(lambda: {"add": {}, "remove": {}})
    path, kind = None, ""
    for line in raw.read_text().splitlines():
        if start := SECTION.match(line):
            path, kind = resolve(root, start[1]), start[2]
        elif not line.strip() or line.startswith(("The full", "---", "(")):
            path = None
        elif path and (found := INCLUDE.search(line)):
            said[path][kind][ALIASES.get(found[1], found[1])] = found[2] or ""
    return said


def code(path: pathlib.Path) -> str:
    return re.sub(r"//.*|^\s*#\s*include.*", "", path.read_text(), flags=re.MULTILINE)


def wanted(root: pathlib.Path, path: pathlib.Path, header: str, why: str) -> bool:
    here = seen(root, path)
    if header in here or INSIDE.match(header) or not spells(code(path), why.removeprefix("for ")):
        return False
    if header == "string_view" and "absl/strings/string_view.h" in here:
        return False
    if any(umbrella in here and header.startswith(parts) for umbrella, parts in UMBRELLAS.items()):
        return False
    return not (header.endswith(".pb.h") and header.replace(".pb.h", ".grpc.pb.h") in here)


def unused(path: pathlib.Path, header: str) -> bool:
    return header not in SPELLED or not re.search(SPELLED[header], code(path))


def main() -> int:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1]).resolve()
    adds = removes = files = 0
    for path, said in sorted(read(root, pathlib.Path(sys.argv[2])).items()):
        add = {h: why for h, why in said["add"].items() if wanted(root, path, h, why)}
        # What is added under another spelling is not removed.
        remove = [h for h in said["remove"] if h not in said["add"] and unused(path, h)]
        if not add and not remove:
            continue
        files, adds, removes = files + 1, adds + len(add), removes + len(remove)
        print(path.relative_to(root))
        print(*(f"  + {header}  {why}" for header, why in sorted(add.items())), sep="\n", end="\n" if add else "")
        print(*(f"  - {header}" for header in sorted(remove)), sep="\n", end="\n" if remove else "")
    print(f"{adds} includes missing, {removes} not used, in {files} files")
    return 1 if files else 0


if __name__ == "__main__":
    sys.exit(main())
