"""Companion to "A Survey of Vision-Language Pre-Trained Models" (arXiv 2202.10936): its tables, nine experiments.

`resources` (tables) · `scenes` (pictures, captions, questions with known answers) · `encoder` (one configurable fusion
encoder, training, losses) · `records` (evidence) · `towers` (V2, V7) · `answers` (V6, V9).
"""
