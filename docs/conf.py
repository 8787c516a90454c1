"""The documentation site, by Sphinx: `sphinx-build -W -b html -c docs . build/site`. Needs no network.

The source folder is the whole project, of which Sphinx reads the pages named below, so that a link between pages is the
same on GitHub, in an editor and on the site. The reference is made of the table of public names; see `reference.py`.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "tests")]

import tfxformer  # noqa: E402

project = "tfxformer"
author = "the tfxformer authors"
version = release = tfxformer.__version__
project_copyright = "the tfxformer authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "reference"]
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md", "applications/*/*.md", "benchmarks/README.md"]
exclude_patterns = ["docs/conf.py", ".*", "build", "tests", "tfxformer", "saved_models"]
suppress_warnings = ["myst.header"]  # pages of results begin with a table

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nitpicky = False
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Call", "params_style")]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types and shapes
autodoc_inherit_docstrings = False
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"tfxformer {version}"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_extra_path = ["site"]  # index.html of the folder itself, which leads to docs/index.html
templates_path = []
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"
