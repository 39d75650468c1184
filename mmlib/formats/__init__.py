"""Readers and writers of the public multimodal formats, in their exact layouts.

Readers stream: they yield one record at a time and never hold a file. What a public file gets wrong is skipped or
mended, and counted by name in a `reading.Skips`; what makes a file useless (not JSON, another format) is an error.
"""
