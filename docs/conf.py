"""How Sphinx builds the pages: `make docs`."""

from importlib.metadata import version as version_of

project = "sparsekit"
author = "The sparsekit authors"
copyright = "2026, The sparsekit authors"
version = release = version_of("sparsekit-cpu")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
default_role = "code"  # docstrings write code in single backquotes

html_theme = "furo"
html_title = f"sparsekit {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
