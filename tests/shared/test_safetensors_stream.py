"""safetensors_stream.py: what it writes is read back by the safetensors library."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from stages.shared.safetensors_stream import write_sixteen_bit

SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=0, max_size=3), min_size=1, max_size=6)


@given(SHAPES, st.sampled_from(["bfloat16", "float16"]))
def test_the_library_reads_back_every_bit(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], dtype: str
) -> None:
    file = tmp_path_factory.mktemp("safetensors") / "model.safetensors"
    torch.manual_seed(len(shapes))
    tensors = {f"capa.{index}.ñ": torch.randn(shape).to(getattr(torch, dtype)) for index, shape in enumerate(shapes)}
    write_sixteen_bit(file, dtype, {name: list(tensor.shape) for name, tensor in tensors.items()}, tensors.items())
    loaded = load_file(file)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name].reshape(-1).view(torch.int16), tensor.reshape(-1).view(torch.int16))


def test_transposed_tensors_are_written_in_their_own_order(tmp_path: Path) -> None:
    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T
    write_sixteen_bit(tmp_path / "a.safetensors", "bfloat16", {"a": [3, 2]}, [("a", tensor)])
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], tensor)


def test_the_data_begins_at_a_multiple_of_eight_and_says_that_it_is_torch_s(tmp_path: Path) -> None:
    for name in ("a", "ab", "abc", "abcd", "abcdefgh"):
        write_sixteen_bit(tmp_path / "a.safetensors", "float16", {name: [1]}, [(name, torch.ones(1, dtype=torch.half))])
        assert int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little") % 8 == 0
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_are_pulled_as_they_are_written(tmp_path: Path) -> None:
    """When one is asked for, one is being written, one waits for that, and the others are on the disk."""
    file = tmp_path / "a.safetensors"
    names, sizes = [str(number) for number in range(20)], []

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name in names:
            sizes.append(file.stat().st_size)
            yield name, torch.zeros(50_000, dtype=torch.bfloat16)

    write_sixteen_bit(file, "bfloat16", {name: [50_000] for name in names}, tensors())
    for asked_for, size in enumerate(sizes):
        assert size >= (asked_for - 3) * 100_000


@pytest.mark.parametrize(
    "tensors",
    [
        [("a", torch.zeros(3, dtype=torch.bfloat16))],
        [("b", torch.zeros(2, dtype=torch.bfloat16))],
    ],
)
def test_a_tensor_that_is_not_the_announced_one_is_a_bug_and_says_so(
    tmp_path: Path, tensors: list[tuple[str, torch.Tensor]]
) -> None:
    with pytest.raises(AssertionError):
        write_sixteen_bit(tmp_path / "a.safetensors", "bfloat16", {"a": [2]}, tensors)


def test_too_few_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_sixteen_bit(tmp_path / "a.safetensors", "bfloat16", {"a": [2]}, [])
