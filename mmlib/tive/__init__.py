"""TIVE: which visual instructions are worth training on. Import from the module that owns a thing:

Gradients: `samples` (buckets and padded batches) · `lora` (per-sample gradients inside LoRA layers) · `projection`
(factored, seeded) · `answers` (the short forward pass) · `gradients` (one pass over samples) ·
`datastore` (shards on disk) · `fill` (a pool into a datastore).
Choice: `labels` (tasks of the public pool) · `values` (task difficulty, instance influence, baselines' scores) ·
`influence` (two passes over a datastore) · `allocation` (how many per task) · `sampling` (which ones) · `selection`
(the selected pool and its manifest).
Study: `target` (one trained target, shared with `redundancy`) · `reference` (reference models, values, controls) ·
`arms` (who takes what) · `ranks` · `outcomes` (evidence) · `comparisons` · `judgement` · `report`.
"""
