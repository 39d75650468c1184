"""mmlib: the small library behind the notebooks. Notebooks narrate, mmlib computes.

Import from the module that owns a thing (`from mmlib.metrics.lm import perplexity`): nothing is imported here, so
that a stage's static import closure, and with it what reruns after an edit, stays narrow.
"""
