"""VLAB (He et al. 2023, arXiv 2305.13167): CLIP made to see time by adapters, and blended with what it was.

The paper's abstract and secondary sources confirm the two strategies (feature adapting, feature blending); operator,
place of insertion, freezing and the form of blending are reconstructions here, and each of them can be exchanged.

`language` `data`: clips with reversed partners, captions, questions; `adapters` `model`: the networks;
`clip_base` `training`: how they are trained; `tasks`: three tasks, one checkpoint; `frames`: real video files.
"""
