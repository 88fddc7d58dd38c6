"""check_params: the real stage on this repository's params."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import check_params

ROOT = Path(__file__).parents[1]


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names in a params file; the bars of the gate are one knob each."""
    for name, value in values.items():
        inner = isinstance(value, dict) and not prefix
        yield from leaves(value, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]


def test_the_names_are_those_of_params_yaml_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    check_params.main()
    names = (tmp_path / "data/knobs.txt").read_text(encoding="utf-8").splitlines()
    assert names == list(leaves(YAML(typ="safe").load(ROOT / "params.yaml")))
    assert "lora.r" in names and "validate.max_similarity" in names


def test_a_wrong_knob_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("dropout: 0.0", "dropout: 2.0"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"params\.yaml: lora\.dropout: is 2\.0"):
        check_params.main()
    assert not (tmp_path / "data").exists()
