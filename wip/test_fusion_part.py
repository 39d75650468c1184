def test_architectures_have_equally_many_weights_in_their_blocks():
    def matrices(arm: str) -> int:
        named = build(arm, 0).named_parameters()
        return sum(weight.numel() for name, weight in named if "blocks" in name and weight.ndim == 2)

    assert {matrices(arm) for arm in ARCHITECTURES} == {3 * 12 * 64**2}


def test_swapping_colours_keeps_every_other_word():
    from mmlib.survey_vlp import scenes

    ids = torch.from_numpy(scenes.encode(["red dog and blue owl", "dog on red and owl on blue"], 9))
    back = [" ".join(scenes.WORDS[i] for i in row if i > scenes.CLS) for row in swapped_colours(ids).tolist()]
    assert back == ["blue dog and red owl", "dog on blue and owl on red"]
