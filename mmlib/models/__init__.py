"""Models of the studies: `lm` imports and opens language-model checkpoints."""
