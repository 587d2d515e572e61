"""report.pdf: the page as it prints, by WeasyPrint: tagged (PDF/UA-1), with title and language. Nothing is fetched."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from medrobust.errors import InputError, one_line
from medrobust.report.writing import RESULTS_DIGEST

FILE = "report.pdf"


def file(folder: Path, html: str, *, wanted: bool) -> dict[str, bytes | None]:
    """FILE with its content where it is wanted; else None for it where report.html in the folder is another page than
    ``html``, which a FILE of that page would contradict."""
    page = folder / "report.html"
    if wanted:
        return {FILE: rendered(html)}
    return {} if page.is_file() and page.read_bytes() == html.encode("utf-8") else {FILE: None}


def rendered(html: str) -> bytes:
    """The bytes of a PDF. InputError where WeasyPrint or a library of it (pango) is missing."""
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ImportError:
        raise InputError("a PDF needs WeasyPrint: pip install 'medrobust[pdf]'") from None
    except OSError as error:  # of a library that it loads
        raise InputError(
            f"WeasyPrint lacks a library ({one_line(error)}); install pango (apt install libpangoft2-1.0-0)"
        ) from None
    document = HTML(string=printable(html), media_type="print", url_fetcher=URLFetcher(allowed_protocols=("data",)))
    return bytes(document.write_pdf(pdf_variant="pdf/ua-1", custom_metadata=True))


def printable(html: str) -> str:
    """The page without what WeasyPrint cannot do: variables inside drawings, color-mix, aria-label as their text."""
    printed = re.search(r"@media print \{.*", html, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", html.partition("@media")[0]))
    colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", printed[0].partition("</style>")[0] if printed else ""))
    css = (files("medrobust.report") / "pdf.css").read_text(encoding="utf-8")
    if digest := RESULTS_DIGEST.search(html):
        css += f'@page {{ @top-right {{ content: "SHA-256 of the results {digest[1]}"; font: 6.5pt sans-serif }} }}\n'
    html = html.replace("</style>", f"{css}</style>", 1)  # a sheet of its own would give way to the page's
    html = re.sub(r"var\(--([\w-]+)\)", lambda m: colours.get(m[1], m[0]), html)
    html = re.sub(r'(<svg [^>]*aria-label="([^"]*)"[^>]*>)', r"\1<title>\2</title>", html)
    return re.sub(r'style="--share: (\d+)%"', lambda m: f'style="background: {_shade(colours, int(m[1]))}"', html)


def _shade(colours: dict[str, str], share: int) -> str:
    """Background of a cell of a confusion matrix, as page.css mixes it. share: in %."""
    return f"{colours.get('heat', '#0072b2')}{round(share / 100 * 0.42 * 255):02x}"
