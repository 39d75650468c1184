"""Companion to "A Survey of Large Language Models" (arXiv 2303.18223): its tables as data, its statements as runs.

Shared: `transformer` (a small decoder with exchangeable positions) · `scaling` (laws, fits, training, the sweep) ·
`reading` (what the reports share). Per experiment: `resources` (the survey's tables, memory, intensity) · `positions`
(length extrapolation) · `parity` (chain of thought) · `frozen` (SmolLM2: decoding, demonstrations) · `cost` (of a
token) · `rounding` · `mixtures` (instruction data) · `efficient` (few weights) · `preferences` · `tuning` (their
stage).
"""
