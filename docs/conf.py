"""Configuration of Sphinx: `python -m sphinx -W docs docs/_build`."""

import os

import skssl

project = "skssl"
author = "the skssl developers"
copyright = author
version = release = skssl.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "myst_parser",
]
exclude_patterns = ["_build", "gallery/*.ipynb"]
autosummary_generate = True
templates_path = ["_templates"]
numpydoc_show_class_members = False
default_role = "code"
toc_object_entries_show_parents = "hide"
# Docstrings that are inherited from scikit-learn refer to its own pages and glossary.
# The configuration of the gallery holds a function, so Sphinx keeps no cache of it.
suppress_warnings = ["ref.ref", "ref.term", "config.cache"]
myst_heading_anchors = 3


def arguments(gallery, script):
    """Return what an example is called with: photographs, where they are at hand."""
    takes_signs = script["src_file"].endswith(("hand_signs.py", "own_network.py"))
    path = os.environ.get("SKSSL_SIGNS")
    return ["--data", path] if path and takes_signs else []


sphinx_gallery_conf = {
    "reset_argv": arguments,
    "parallel": 2,  # small networks hardly use a second thread
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    # Neither MNIST nor a cluster is at hand here.
    "filename_pattern": "plot_(?!rotation_mnist|cluster)",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skssl"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["skssl.css"]
html_theme_options = {"show_prev_next": True, "secondary_sidebar_items": ["page-toc"]}
