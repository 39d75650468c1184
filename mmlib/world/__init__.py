"""The emoji world: drawn scenes and clips whose content is known exactly, and language about them.

Art: OpenMoji (CC BY-SA 4.0). One seed gives the same scenes, bytes and sentences on any machine with the same pins.
`nouns` `scenes` `render` `clips`: what is seen; `language` `questions`: what is said about it; `pool` `knobs`: the
instruction pool; `benchmarks`: the tests.
"""
