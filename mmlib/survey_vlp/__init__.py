"""Companion to "A Survey of Vision-Language Pre-Trained Models" (arXiv 2202.10936): its tables, nine experiments.

`resources` (tables) · `scenes` (pictures, captions, questions with known answers) · `questions` (the same as tensors) ·
`encoder` (one configurable fusion encoder, training, losses) · `records` (evidence) · `towers` (V2, V7) · `fusion` (V1,
V8) · `tasks` (V3, V4) · `masks` (V5) · `answers` (V6, V9).
"""
