"""Wheels: hash before use, one more try, unsafe archives refused, pip's reason passed on."""

from __future__ import annotations

import hashlib
import io
import stat
import sys
import zipfile

import pytest

from mmlib import wheels
from mmlib.errors import UserError
from mmlib.wheels import Progress, Source, Wheel


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return buffer.getvalue()


GOOD = archive({"pkg/a.txt": b"A", "pkg/b.txt": b"B", "pkg/c.bin": b"C"})
WHEEL = Wheel("pkg==1.0", "pkg-1.0-py3-none-any.whl", len(GOOD), hashlib.sha256(GOOD).hexdigest())


class Index:
    """A fake package index: hands out the given contents one after the other."""

    def __init__(self, *contents: bytes) -> None:
        self.contents, self.asked = list(contents), []

    def __call__(self, wheel, folder, fresh) -> None:
        self.asked.append(fresh)
        (folder / wheel.file).write_bytes(self.contents.pop(0))


def obtain(folder, index):
    return wheels.obtain(WHEEL, folder, index, Progress(WHEEL.bytes))


def test_right_wheel_in_the_folder_is_not_downloaded_again(tmp_path):
    (tmp_path / WHEEL.file).write_bytes(GOOD)
    assert obtain(tmp_path, Index()).read_bytes() == GOOD


@pytest.mark.parametrize("bad", [GOOD[:-20], b"", b"x" * len(GOOD)], ids=["truncated", "empty", "other"])
def test_damaged_download_is_named_and_fetched_again_past_the_cache(tmp_path, capsys, bad):
    index = Index(bad, GOOD)
    assert obtain(tmp_path, index).read_bytes() == GOOD
    assert index.asked == [False, True]
    assert f"{WHEEL.file} is damaged ({len(bad)} of {len(GOOD)} bytes)" in capsys.readouterr().out


def test_damaged_wheel_in_the_folder_is_replaced(tmp_path):
    (tmp_path / WHEEL.file).write_bytes(GOOD[:-1])
    assert obtain(tmp_path, Index(GOOD)).read_bytes() == GOOD


def test_wrong_twice_is_an_error_with_both_hashes_and_leaves_nothing(tmp_path):
    other = b"x" * len(GOOD)
    with pytest.raises(UserError) as caught:
        obtain(tmp_path, Index(other, other))
    for part in (WHEEL.file, WHEEL.package, WHEEL.sha256, hashlib.sha256(other).hexdigest(), "pip config list"):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def read(tmp_path, content, source, cap=100):
    path = tmp_path / WHEEL.file
    path.write_bytes(content)
    return wheels.read_members(path, source, cap)


def test_members_are_taken_by_name_or_counted_glob(tmp_path):
    assert [m.content for m in read(tmp_path, GOOD, Source("pkg", "pkg/c.bin"))] == [b"C"]
    assert [m.path for m in read(tmp_path, GOOD, Source("pkg", "pkg/*.txt", 2))] == ["pkg/a.txt", "pkg/b.txt"]


@pytest.mark.parametrize("source", [Source("pkg", "pkg/missing.txt"), Source("pkg", "pkg/*.txt", 3)])
def test_missing_member_is_named(tmp_path, source):
    with pytest.raises(UserError, match=source.members.replace("*", r"\*")):
        read(tmp_path, GOOD, source)


@pytest.mark.parametrize("name", ["../evil", "pkg/../../evil", "/etc/evil", "C:\\evil", "..\\evil", "C:evil"])
def test_members_that_leave_the_folder_are_refused(tmp_path, name):
    content = archive({"pkg/a.txt": b"A", name: b"evil"})
    with pytest.raises(UserError, match="unsafe member"):
        read(tmp_path, content, Source("pkg", "pkg/a.txt"))


def test_symlink_members_are_refused(tmp_path):
    link = zipfile.ZipInfo("pkg/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="unsafe member `pkg/link`"):
        read(tmp_path, buffer.getvalue(), Source("pkg", "pkg/link"))


def test_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(UserError, match="unpacks to 1000000 bytes, the cap is 100"):
        read(tmp_path, archive({"pkg/zero": b"\0" * 10**6}), Source("pkg", "pkg/zero"))


def test_unsound_zip_is_a_user_error(tmp_path):
    flipped = bytearray(GOOD)
    flipped[GOOD.index(b"pkg/a.txt") + len("pkg/a.txt")] ^= 0xFF
    for content in (b"no zip", bytes(flipped)):
        with pytest.raises(UserError, match="no sound zip file"):
            read(tmp_path, content, Source("pkg", "pkg/a.txt"))


@pytest.fixture
def pip_index(tmp_path, monkeypatch):
    """A folder that is all that pip can see: no index, no configuration, no network."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def test_pip_takes_the_pinned_platform_from_the_users_index(tmp_path, pip_index):
    info = {"METADATA": "Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\nRequires-Dist: never-needed\n",
            "WHEEL": "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_28_x86_64\n", "RECORD": ""}  # fmt: skip
    content = archive({f"pkg-1.0.dist-info/{name}": text.encode() for name, text in info.items()})
    name = "pkg-1.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
    (pip_index / name).write_bytes(content)
    host = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for decoy in (f"pkg-1.0-{host}-{host}-manylinux_2_29_x86_64.whl", "pkg-1.0.tar.gz"):
        (pip_index / decoy).write_bytes(b"what the host itself would take")
    target = tmp_path / "wheels"
    target.mkdir()
    wheels.pip_download(Wheel("pkg==1.0", name, 0, ""), target, False)
    assert [p.name for p in target.iterdir()] == [name]
    assert (target / name).read_bytes() == content


def test_missing_wheel_is_named_with_pips_reason(tmp_path, pip_index):
    with pytest.raises(UserError) as caught:
        wheels.pip_download(WHEEL, tmp_path, False)
    message = str(caught.value)
    assert "cannot download pkg==1.0: No matching distribution found for pkg==1.0" in message
    assert f"put {WHEEL.file} into .scratch/wheels/" in message
    assert "\n" not in message and "WARNING" not in message


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("WARNING: Retrying after connection broken by 'X'\nERROR: No match\n", "index does not answer (No match)"),
        ("ERROR: Could not install: [Errno 28] No space left on device\n", "disk full while downloading pkg==1.0"),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("ERROR: bad\nWARNING: noise\n[notice] A new release of pip\n", "cannot download pkg==1.0: bad;"),
        ("", "pip gave no reason"),
    ],
)
def test_pips_noise_is_reduced_to_its_reason(stderr, expected):
    assert expected in str(wheels._explain(WHEEL, stderr))
