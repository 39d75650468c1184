"""Do emergent abilities survive quantization? Import from the module that owns a thing:

Rounding: `grid` (grids) · `stored` (what is kept at 16 bits, RTN) · `gptq` (one matrix) · `model` (a whole model,
true-sequential) · `bitmap` (which linear gets how many bits) · `size` (storage, counted) · `packed` (the same as a
file) · `round_and_save` (as a command) · `bnb` (bitsandbytes baselines) · `bench` (subject, text and tasks of a run).
Abilities: `abilities` (in-context learning) · `remapped` (labels that only demonstrations tell) · `instructions`
(rule-checked) · `speaking` (greedy answers) · `arithmetic` (worked word problems) · `word_problems` (the same in
English) · `harness` (the same items through lm-evaluation-harness) · `evaluators` (both side by side).
Parts: `bits` · `components` · `outliers`, `outlier_arms` · `family` (models trained here), `family_search` (their
learning rates), `family_store` (their weights), `equal_bits` (widths compared at equal storage) · `compensation`
(fine-tuning), `learning_rates` (of it). What their reports show stands in `<part>_report`, answers in `samples`.
"""
