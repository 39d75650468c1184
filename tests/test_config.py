"""params.yaml: every way of getting it wrong is an error that names key and file."""

from __future__ import annotations

import shutil

import pytest

from mmlib import config
from mmlib.errors import UserError


@pytest.fixture
def project(tmp_path, root):
    shutil.copy(root / "params.yaml", tmp_path)
    shutil.copytree(root / "profiles", tmp_path / "profiles")
    (tmp_path / "mmlib").mkdir()
    return tmp_path


def edit(project, old, new, file="params.yaml"):
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new, 1))


def test_committed_params_and_profiles_are_valid(root):
    assert config.load(root).profile == "laptop"
    for profile in config.profiles(root):
        assert config.overlay(root, profile)["profile"] == profile


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("shots:", "shotz:", "quantization.bits.shotz"),
        ("  layers: 30", "  layer: 30", "lm.layer"),
        ("damping: 0.01", "damping: 1", "quantization.bits.damping"),
        ("act_order: true", "act_order: 1", "quantization.bits.act_order"),
        ("widths: [8, 4, 3, 2]", "widths: [8, four]", "quantization.bits.widths[1]"),
        ("widths: [8, 4, 3, 2]", "widths: []", "quantization.bits.widths"),
        ("source: package", "source: pickle", "lm.source"),
        ("icl_items: 40", "icl_items: 4e1", "quantization.bits.icl_items"),
    ],
)
def test_a_wrong_key_or_type_names_key_and_file(project, old, new, named):
    edit(project, old, new)
    with pytest.raises(UserError) as error:
        config.load(project)
    assert named in str(error.value) and "params.yaml" in str(error.value)


def test_a_missing_key_is_named(project):
    edit(project, "    damping: 0.01\n", "")
    with pytest.raises(UserError, match=r"missing key `quantization\.bits\.damping`"):
        config.load(project)


def test_a_typo_in_a_profile_names_the_profile_and_suggests(project):
    edit(project, "icl_items: 6", "icl_itms: 6", "profiles/smoke.yaml")
    with pytest.raises(UserError, match=r"profiles/smoke\.yaml.*icl_itms.*did you mean `icl_items`"):
        config.overlay(project, "smoke")


def test_yaml_is_1_2_and_broken_yaml_is_one_line(project):
    edit(project, "damping: 0.01", "damping: 1e-2")  # text in YAML 1.1
    assert config.load(project).quantization.bits.damping == 0.01
    edit(project, "profile: laptop", "profile: [laptop")
    with pytest.raises(UserError) as error:
        config.load(project)
    assert "\n" not in str(error.value) and "params.yaml" in str(error.value)


def test_unknown_profile_lists_the_known(project):
    with pytest.raises(UserError, match="laptop, smoke"):
        config.overlay(project, "labtop")


def test_values_are_plain_and_unknown_sections_are_named(root):
    section = config.values("quantization.bits", root)
    assert section["damping"] == 0.01 and section["act_order"] is True and isinstance(section["widths"], list)
    with pytest.raises(UserError, match=r"quantization\.bit`"):
        config.values("quantization.bit", root)


def test_settings_are_frozen(root):
    with pytest.raises(AttributeError):
        config.load(root).profile = "paper"
