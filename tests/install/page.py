"""The files and commands of docs/install.md, which stand in it after a line `<!-- file: PATH -->` or `<!-- run: NAME -->`.

page.py PAGE FOLDER   writes each file below FOLDER, and each block of commands as FOLDER/run/NAME.sh
"""

import pathlib
import re
import sys

BLOCK = re.compile(r"^<!-- (file|run): (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> None:
    page, folder = (pathlib.Path(argument) for argument in sys.argv[1:])
    text = page.read_text()
    blocks = BLOCK.findall(text)
    if len(blocks) != text.count("\n```") // 2:
        sys.exit(f"{page}: a block has no line that says how it is tested")
    for kind, name, content in blocks:
        path = folder / (f"run/{name}.sh" if kind == "run" else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
