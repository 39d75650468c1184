"""Companion to "A Survey of Large Language Models" (arXiv 2303.18223): its tables as data, its statements as runs.

`resources` (tables of the survey, memory and intensity arithmetic) · `transformer` (a small decoder with exchangeable
positions) · `scaling` (laws, fits, the sweep) · `positions` (length extrapolation) · `parity` (chain of thought) ·
`frozen` (SmolLM2: decoding, demonstrations) · `cost` (of a token) · `reading` (what the reports share).
"""
