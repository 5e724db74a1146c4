"""HTML pages in one file: the frame, the style, and pictures inside the text. Whoever gives text escapes it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; font-variant-numeric: tabular-nums }
th, td { padding: .25em .8em .25em 0; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap }
th { vertical-align: bottom }
td { vertical-align: top }
td.long { white-space: normal; min-width: 24em; overflow-wrap: anywhere }
code { display: block; padding: .6em; background: #f4f4f4; white-space: pre-wrap; overflow-wrap: anywhere }
img { max-width: 100% }
"""


def html_page(title: str, parts: Sequence[str]) -> str:
    """A whole page; the title is plain text, the parts are HTML, and empty ones are left out."""
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>\n'
        f"{body}\n</html>\n"
    )


def image_tag(content: bytes, kind: str, alternative: str) -> str:
    """A picture inside the page; ``kind`` is ``png`` or ``jpeg``, the alternative is plain text."""
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(alternative)}" src="data:image/{kind};base64,{data}">'
