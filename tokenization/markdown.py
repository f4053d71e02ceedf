"""Text that comes from data, put into Markdown without being Markdown."""

import re

_SPECIAL = re.compile(r"([\\`\[\]|])")


def plain(text: object) -> str:
    """One line that Markdown and HTML show as it is: no link, no tag, no code, no new column or heading.

    Parameters
    ----------
    text
        A label, a name, a citation: whatever somebody else wrote.

    Examples
    --------
    >>> plain("T cell | <img src=x> [here](http://x)")
    'T cell \\\\| &lt;img src=x&gt; \\\\[here\\\\](http://x)'
    """
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)
