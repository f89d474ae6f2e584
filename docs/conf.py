"""The documentation site: Sphinx with MyST (Markdown) and the theme furo.

Build: `pip install -c constraints.txt -e ".[docs]" && python -m sphinx -W --keep-going -b html docs docs/_build`. It needs no
network. The pages of the gallery are made in the build.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

project = "musiclm"
author = "the musiclm authors"
copyright = "the musiclm authors"
version = release = installed_version("musiclm")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"musiclm {release}"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
html_show_copyright = False

smartquotes = False  # it would write --bars with a dash
default_role = "literal"  # docstrings write `name`, as Markdown does
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True


def plain_text(app, what, name, obj, options, lines) -> None:  # type: ignore[no-untyped-def]
    """Mark up a docstring, which is written for people, where reStructuredText would read it otherwise.

    An indented block becomes a literal block, and | is not the beginning of a substitution.
    """
    has_sections = any(re.match(r"(Args|Attributes|Returns|Raises|Yields):", line) for line in lines)  # napoleon's
    made: list[str] = []
    is_literal = False
    for i, line in enumerate(lines):
        is_indented = line.startswith(" ")
        if is_indented and not is_literal and not has_sections and i and not lines[i - 1].strip():
            made += ["::", ""]
            is_literal = True
        elif line.strip() and not is_indented:
            is_literal = False
        made.append(line if is_literal else line.replace("|", r"\|"))
    lines[:] = made


GALLERY = {  # an example, and what `musiclm show` needs to show its given notes pale
    "chorale-best": [],
    "song-best": [],
    "trio-best": [],
    "band-best": [],
    "voices-best": ["--prompt", "hymn.mid"],
}


def make_gallery(app, exception) -> None:  # type: ignore[no-untyped-def]
    """Write the pages of pieces that guide/gallery.md links to, by `musiclm show`, beside the built site."""
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "gallery"
    folder.mkdir(exist_ok=True)
    for name, options in GALLERY.items():
        command = ["show", f"{name}.mid", *options, "-o", str(folder / f"{name}.html"), "--force", "--quiet"]
        examples = Path(__file__).resolve().parents[1] / "examples"
        subprocess.run([sys.executable, "-m", "musiclm", *command], check=True, cwd=examples, stdout=subprocess.DEVNULL)


def setup(app) -> None:  # type: ignore[no-untyped-def]
    app.connect("build-finished", make_gallery)
    app.connect("autodoc-process-docstring", plain_text, priority=100)
