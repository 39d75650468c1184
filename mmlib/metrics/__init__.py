"""Metrics: `lm` (perplexity, KL, agreement) and `continuations` (ranking and exact match of answers)."""
