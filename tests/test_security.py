"""What must never stand in the code: remote code, pickles, floating revisions, shell strings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.test_dependencies import code_of

HUB_LOADERS = {"from_pretrained", "load_dataset", "snapshot_download", "hf_hub_download"}


def offences(code: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {k.arg: k.value for k in node.keywords}
        if "trust_remote_code" in keywords:
            found.append("trust_remote_code")
        if name in ("torch.load", "pickle.load", "pickle.loads", "dill.load", "joblib.load", "eval"):
            found.append(name)
        if name == "torch.save":
            found.append("torch.save: use safetensors")
        if name.split(".")[-1] in HUB_LOADERS and "hub" in ast.unparse(node) and "revision" not in keywords:
            found.append(f"{name} from the hub without a revision")
        if isinstance(keywords.get("shell"), ast.Constant) and keywords["shell"].value:
            found.append("shell=True")
    return found


def sources() -> list[Path]:
    root = Path(__file__).resolve().parent.parent
    return [p for top, pattern in (("mmlib", "*.py"), ("notebooks", "*.ipynb")) for p in (root / top).rglob(pattern)]


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.name)
def test_no_offence_in_the_code(path):
    assert offences(code_of(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "torch.load(path)",
        "import pickle\npickle.load(f)",
        "AutoModel.from_pretrained(hub_id)",
        "subprocess.run(cmd, shell=True)",
        "torch.save(model, path)",
    ],
)
def test_the_check_trips(code):
    assert offences(code)
