"""report.pdf: the page as it prints, by WeasyPrint: tagged (PDF/UA-1), with title and language. Nothing is fetched."""

from __future__ import annotations

from importlib.resources import files

from medrobust.errors import InputError, one_line


def rendered(html: str) -> bytes:
    """The bytes of a PDF. InputError where WeasyPrint or a library of it (pango) is missing."""
    try:
        from weasyprint import CSS, HTML
        from weasyprint.urls import URLFetcher
    except ImportError:
        raise InputError("a PDF needs WeasyPrint: pip install 'medrobust[pdf]'") from None
    except OSError as error:  # of a library that it loads
        raise InputError(
            f"WeasyPrint lacks a library ({one_line(error)}); install pango (apt install libpangoft2-1.0-0)"
        ) from None
    css = CSS(string=(files("medrobust.report") / "pdf.css").read_text(encoding="utf-8"))
    document = HTML(string=html, media_type="print", url_fetcher=URLFetcher(allowed_protocols=("data",)))
    return bytes(document.write_pdf(stylesheets=[css], pdf_variant="pdf/ua-1", custom_metadata=True))
