"""JADE (Liu et al. 2023, arXiv 2305.11769): one model asks, answers and describes boxes, and makes a data set.

Confirmed are generator, prompts, decoding and file format (public code and figure); the filter's training and every
result table are not, so that what the data set is worth is judged against this world's truth.

`corpora` `language` `truth`: pictures, what people say about them, what would be right; `detect`: boxes; `tokens`
`batches` `model` `training`: generator and filter; `decoding` `generate` `plain`: making the data; `filtering`
`precision` `dataset`: choosing, judging and storing it.
"""
