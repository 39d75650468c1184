"""Do emergent abilities survive quantization? Import from the module that owns a thing:

`grid` (grids, RTN) · `gptq` (one matrix) · `model` (a whole model, true-sequential) · `size` (packed storage) ·
`bnb` (bitsandbytes baselines) · `abilities` (in-context-learning tasks) · `bits`, `bits_report` (the bit-width study).
"""
