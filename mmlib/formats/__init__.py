"""Readers and writers of the public multimodal formats, in their exact layouts.

Readers stream: they yield one record at a time and never hold a file. What a public file gets wrong is skipped or
mended, and counted by name in a `Skips`; what makes a file useless (not JSON at all, another format) is an error.
"""

from mmlib.formats.reading import Skips

__all__ = ["Skips"]
