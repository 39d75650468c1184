"""Do emergent abilities survive quantization? Import from the module that owns a thing:

`grid` (grids, RTN) · `gptq` (one matrix) · `model` (a whole model, true-sequential) · `size` (packed storage) ·
`bnb` (bitsandbytes baselines) · `bench` (subject, text and tasks of a run).
Abilities: `abilities` (in-context learning) · `remapped` (labels that only demonstrations tell) · `instructions`
(rule-checked) · `speaking` (greedy answers) · `arithmetic` (worked word problems) · `harness` (the same items
through lm-evaluation-harness).
Parts: `bits` · `components` · `outliers`, `outlier_arms` · `family` (models trained here) · `compensation`
(fine-tuning); what their reports show stands in `<part>_report`.
"""
