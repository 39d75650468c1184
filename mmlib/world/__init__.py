"""The emoji world: drawn scenes and clips whose content is known exactly, and language about them.

Art: OpenMoji (CC BY-SA 4.0). One seed gives the same scenes, bytes and sentences on any machine with the same pins.
"""

from mmlib.world.clips import Clip, draw_clips, partner, render_clip
from mmlib.world.nouns import Noun, load_nouns
from mmlib.world.render import Renderer
from mmlib.world.scenes import SPLITS, Placed, Scene, Sign, draw_scenes

__all__ = [
    "SPLITS", "Clip", "Noun", "Placed", "Renderer", "Scene", "Sign", "draw_clips", "draw_scenes", "load_nouns",
    "partner", "render_clip",
]  # fmt: skip
