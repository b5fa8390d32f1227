"""Reading the files of a model as they are published."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ecrl.config.schema import LoraConfig
from ecrl.distributed.lightning_strategies import be_a_group_of_one
from ecrl.errors import UsageError
from ecrl.policy.lora import AdapterKind, adapter_kind, add_adapters, is_adapter
from ecrl.policy.model import check_model, load_policy, load_tokenizer
from ecrl.policy.weights import HFWeights, read_weights


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def assert_reads(folder: Path, tiny_model: Path) -> None:
    """The folder's files fill an empty model with the tiny model's weights."""
    wanted = load_policy(str(tiny_model), load_tokenizer(str(tiny_model))).lm
    lm = load_policy(str(tiny_model), load_tokenizer(str(tiny_model))).lm
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.zero_()
    check_model(str(folder))
    read_weights(lm, str(folder))
    assert all(torch.equal(a, b) for a, b in zip(lm.parameters(), wanted.parameters(), strict=True))


def test_torch_files_are_read(folder: Path, tiny_model: Path) -> None:
    """DeepSeek-Math's base model has no others."""
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(stored)
    for i, part in enumerate((names[::2], names[1::2]), 1):
        torch.save({name: stored[name] for name in part}, folder / f"pytorch_model-0000{i}-of-00002.bin")
    assert_reads(folder, tiny_model)


def test_files_of_another_format_are_left_alone(folder: Path, tiny_model: Path) -> None:
    """Mistral's models stand beside a copy for Mistral's own code."""
    stored = load_file(folder / "model.safetensors")
    save_file(
        {name: torch.zeros_like(tensor) for name, tensor in stored.items()},
        folder / "consolidated.safetensors",
    )
    assert_reads(folder, tiny_model)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        UsageError, match=r"holds no weights \(model\*\.safetensors or pytorch_model\*\.bin is missing"
    ):
        check_model(str(folder))


def test_adapters_are_added_before_the_sum_is_rounded(tiny_model: Path) -> None:
    lm = load_policy(str(tiny_model), load_tokenizer(str(tiny_model))).lm
    add_adapters(lm, LoraConfig(r=2))
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    whole, rounded = dict(HFWeights(lm)), dict(HFWeights(lm).cast(torch.bfloat16))
    assert whole.keys() == rounded.keys()
    assert all(torch.equal(rounded[name], tensor.bfloat16()) for name, tensor in whole.items())


def test_adapters_on_their_own_add_up_to_the_merged_weights(tiny_model: Path) -> None:
    lm = load_policy(str(tiny_model), load_tokenizer(str(tiny_model))).lm
    before = {name: tensor.clone() for name, tensor in HFWeights(lm)}
    assert adapter_kind(lm) is None
    add_adapters(lm, LoraConfig(r=2, alpha=3.0, target_modules=["q_proj", "down_proj"]))
    assert adapter_kind(lm) == AdapterKind(2, frozenset({"q_proj", "down_proj"}))
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    apart, merged = dict(HFWeights(lm).apart(base=True)), dict(HFWeights(lm))
    adapters = {name: tensor for name, tensor in apart.items() if is_adapter(name)}
    assert adapters.keys() == dict(HFWeights(lm).apart(base=False)).keys()
    assert apart.keys() - adapters.keys() == before.keys()
    assert all(torch.equal(apart[name], tensor) for name, tensor in before.items())
    a, b = (adapters[f"model.layers.1.mlp.down_proj.lora_{factor}.weight"] for factor in "AB")
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.allclose(before[name] + b @ a, merged[name], atol=1e-6)
    scaled = lm.get_parameter("model.layers.1.mlp.down_proj.lora_B.default.weight") * 1.5  # α/r
    assert torch.equal(b, scaled)
    rounded = dict(HFWeights(lm).cast(torch.bfloat16).apart(base=False))
    assert all(torch.equal(rounded[name], tensor.bfloat16()) for name, tensor in adapters.items())


def test_shards_are_cast_before_they_are_gathered(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_policy(str(tiny_model), load_tokenizer(str(tiny_model))).lm
    whole = {name: tensor.clone() for name, tensor in HFWeights(lm)}
    gathered, gather = [], DTensor.full_tensor

    def full_tensor(shards: DTensor) -> Tensor:
        gathered.append(shards.dtype)
        return gather(shards)

    monkeypatch.setattr(DTensor, "full_tensor", full_tensor)
    be_a_group_of_one("gloo")
    fully_shard(lm)
    rounded = dict(HFWeights(lm).cast(torch.bfloat16))
    assert gathered == [torch.bfloat16] * len(whole)
    assert all(torch.equal(rounded[name], tensor.bfloat16()) for name, tensor in whole.items())
