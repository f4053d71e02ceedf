"""A report a colleague can open: one HTML file with its tables and figures inside."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import pandas as pd

from ..tokenization.files import atomic_path

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; color: #1b2330; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dee8; }
  table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .25rem .8rem; text-align: left; }
  thead th { border-bottom: 2px solid #1b2330; } tbody tr:nth-child(even) { background: #f4f6fa; }
  td { font-variant-numeric: tabular-nums; } img { max-width: 100%; height: auto; }
  pre { background: #f4f6fa; padding: .8rem; overflow-x: auto; white-space: pre-wrap; }
</style>
<h1>{{ title }}</h1>
<p>{{ summary }}</p>
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% for paragraph in section.text.split("\\n\\n") if paragraph %}<p>{{ paragraph }}</p>
{% endfor %}
{% if section.listing %}<pre>{{ section.listing }}</pre>{% endif %}
{% if section.table is not none %}{{ tables[loop.index0] | safe }}{% endif %}
{% for image in images[loop.index0] %}<p><img src="data:image/png;base64,{{ image }}" alt="{{ section.title }}"></p>
{% endfor %}
</section>
{% endfor %}
</html>
"""


@dataclass
class Section:
    """A heading with paragraphs, and a listing, a table or figures where there are any.

    Parameters
    ----------
    title
        The heading.
    text
        Paragraphs, parted by empty lines.
    listing
        Plain text shown as it is.
    table
        Shown with its index as the first column where the index has a name.
    figures
        PNG files, embedded into the page.
    """

    title: str
    text: str = ""
    listing: str = ""
    table: pd.DataFrame | None = None
    figures: Sequence[str | os.PathLike[str]] = field(default_factory=tuple)


def write_html(path: str | os.PathLike[str], title: str, summary: str, sections: Sequence[Section]) -> None:
    """Write sections into one self-contained HTML file, atomically.

    Examples
    --------
    >>> import tempfile
    >>> write_html(Path(tempfile.mkdtemp()) / "report.html", "A run", "One cell.", [Section("Cells", "There is one.")])
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    tables = [
        "" if s.table is None else s.table.to_html(border=0, index=s.table.index.name is not None, na_rep="")
        for s in sections
    ]
    images = [[base64.b64encode(Path(f).read_bytes()).decode() for f in s.figures] for s in sections]
    page = environment.from_string(_PAGE).render(
        title=title, summary=summary, sections=sections, tables=tables, images=images
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
