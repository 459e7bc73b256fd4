"""Folders as pathology foundation models are published: real layouts, few random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from torch import Tensor, nn

__all__ = ["FOLDERS", "write_h_optimus", "write_phikon", "write_uni", "write_virchow"]

WIDTH, DEPTH = 48, 2
SMALL = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
README = """---
license: {licence}
---
# A model

```bibtex
@article{{author2024model,
  title={{A model}},
  year={{2024}},
}}
```
"""


def write_uni(folder: Path) -> nn.Module:
    """Write the layout of UNI: a ViT-L with LayerScale, as a pickle; return the network."""
    arguments = {"img_size": 224, "init_values": 1e-5, "num_classes": 0, "dynamic_img_size": True}
    model = _random("vit_large_patch16_224", **SMALL, **arguments)
    _write_config(
        folder,
        {
            "architecture": "vit_large_patch16_224",
            "num_classes": 0,
            "num_features": WIDTH,
            "global_pool": "token",
            "model_args": SMALL | arguments,
            "pretrained_cfg": {
                "tag": "uni_mass100k",
                "input_size": [3, 224, 224],
                "fixed_input_size": True,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "license": "CC BY-NC-ND 4.0",
            },
        },
    )
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def write_virchow(folder: Path) -> nn.Module:
    """Write the layout of Virchow2: registers and a gated MLP that the config does not name."""
    arguments = {
        "img_size": 224,
        "init_values": 1e-5,
        "mlp_ratio": 5.3375,
        "reg_tokens": 4,
        "dynamic_img_size": True,
    }
    classes = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    model = _random("vit_huge_patch14_224", num_classes=0, **SMALL, **arguments, **classes)
    _write_config(
        folder,
        {
            "architecture": "vit_huge_patch14_224",
            "model_args": SMALL | arguments | {"num_classes": 0, "global_pool": ""},
            "pretrained_cfg": {
                "input_size": [3, 224, 224],
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            },
        },
    )
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "README.md").write_text(README.format(licence="cc-by-nc-nd-4.0"))
    return model


def write_h_optimus(folder: Path) -> nn.Module:
    """Write the layout of H-optimus-0: a DINOv2 giant with registers, and its own scale."""
    arguments = {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False}
    model = _random("vit_giant_patch14_reg4_dinov2", num_classes=0, **SMALL, **arguments)
    _write_config(
        folder,
        {
            "architecture": "vit_giant_patch14_reg4_dinov2",
            "num_classes": 0,
            "global_pool": "token",
            "model_args": SMALL | arguments,
            "pretrained_cfg": {
                "input_size": [3, 224, 224],
                "mean": [0.707223, 0.578729, 0.703617],
                "std": [0.211883, 0.230117, 0.177517],
                "license": "apache-2.0",
            },
        },
    )
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


def write_phikon(folder: Path) -> nn.Module:
    """Write the layout of Phikon-v2: a Dinov2Model of transformers; return the same in timm."""
    model = _random("vit_base_patch16_224", num_classes=0, init_values=1.0, **SMALL)
    _write_config(
        folder,
        {
            "architectures": ["Dinov2Model"],
            "model_type": "dinov2",
            "hidden_size": WIDTH,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": 2,
            "mlp_ratio": 4,
            "patch_size": 16,
            "image_size": 224,
            "layerscale_value": 1.0,
            "qkv_bias": True,
            "use_swiglu_ffn": False,
        },
    )
    preprocessor = {
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    save_file(_as_transformers(model.state_dict()), folder / "model.safetensors")
    (folder / "README.md").write_text(
        README.format(licence="other\nlicense_name: owkin-non-commercial")
    )
    return model


FOLDERS: dict[str, Callable[[Path], nn.Module]] = {
    "UNI": write_uni,
    "Virchow2": write_virchow,
    "H-optimus-0": write_h_optimus,
    "Phikon-v2": write_phikon,
}


def _random(name: str, **arguments: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: nn.Module = timm.create_model(name, **arguments).eval()
        for weight in model.parameters():  # LayerScale begins near 0, and would hide differences
            weight.data = 0.2 * torch.randn(weight.shape)
    return model


def _write_config(folder: Path, config: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))


def _as_transformers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {"embeddings.mask_token": torch.zeros(1, WIDTH)}
    for key, tensor in tensors.items():
        if ".attn.qkv." in key:
            block, kind = key.split(".")[1], key.split(".")[-1]
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                name = f"encoder.layer.{block}.attention.attention.{part}.{kind}"
                found[name] = value.clone()
            continue
        name = key
        for ours, theirs in (
            ("cls_token", "embeddings.cls_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("blocks.", "encoder.layer."),
            (".attn.proj.", ".attention.output.dense."),
            (".ls1.gamma", ".layer_scale1.lambda1"),
            (".ls2.gamma", ".layer_scale2.lambda1"),
        ):
            name = name.replace(ours, theirs)
        found["layernorm." + name.removeprefix("norm.") if name.startswith("norm.") else name] = (
            tensor
        )
    return found
