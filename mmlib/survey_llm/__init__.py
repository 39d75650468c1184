"""Companion to "A Survey of Large Language Models" (arXiv 2303.18223): its tables as data, its statements as runs.

`resources` (tables of the survey, memory and roofline arithmetic) · `scaling` (laws, fits, the sweep) ·
`transformer` (a small decoder with interchangeable position schemes) · `positions` (length extrapolation) ·
`frozen` (SmolLM2: decoding, prompting) · `synthetic` (recall, parity) · `adapt` (PEFT, preferences).
"""
