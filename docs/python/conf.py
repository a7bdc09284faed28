"""Sphinx's settings for the Python client's pages, which scripts/python_docs.sh builds."""

import pathlib
import runpy

_package = pathlib.Path(__file__).resolve().parents[2] / "client/python/src/attnd"

project = "attnd"
copyright = "the attnd authors, Apache License 2.0"  # noqa: A001
release = version = runpy.run_path(str(_package / "_version.py"))["VERSION"]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"attnd {release}: the Python client"
html_show_sphinx = False
html_copy_source = False

nitpicky = True  # an unresolved reference is a warning, and warnings are errors
nitpick_ignore_regex = [
    # Names that these pages do not document.
    (r"py:.*", r"(asyncio|collections|datetime|enum|grpc|numpy|np|os|pathlib|subprocess|torch|types|typing)\..*"),
    (r"py:class", r"(.*\b_\w+\..*|attnd\.errors\.E)"),  # private names
    (r"py:class", r"Handle|Difference"),  # of attnd.transformers, whose modules need torch
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_preserve_defaults = True
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_display_short_literal_types = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
