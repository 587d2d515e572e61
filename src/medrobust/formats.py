"""The image file formats that are read, in one place: what the decoder opens, what messages, help and documents name.

Formats that run a program of their own (EPS starts Ghostscript) are not among them, whatever a file's name is.
"""

from __future__ import annotations

FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "WEBP": (".webp",),
    "PPM": (".pgm", ".ppm", ".pbm", ".pnm"),
}
"""Pillow's name of each format, and the endings of its files."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

SUFFIXES = (*(suffix for suffixes in FORMATS.values() for suffix in suffixes), *DICOM_SUFFIXES)
"""Endings, in lower case, of the files that are taken for images in a folder."""

TITLES = "PNG, JPEG, TIFF, BMP, GIF, JPEG 2000, WebP, PGM/PPM and DICOM"
"""The formats in words."""
