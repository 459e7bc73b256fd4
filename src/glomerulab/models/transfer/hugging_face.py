"""Names of Hugging Face's transformers for vision transformers, turned into those of timm."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["is_of_transformers", "timm_arguments", "to_timm"]

RENAMED = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.(?:layernorm_before|norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|norm2)\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.(?:intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)
"""Of ViTModel and Dinov2Model, without and with registers."""
UNUSED = re.compile(r"^(?:pooler\.|embeddings\.mask_token$)")
"""Layers that no classifier of timm has."""
QKV = re.compile(r"^(blocks\.\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$")
CLS = "embeddings.cls_token"


def is_of_transformers(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the tensors have the names of a vision transformer of transformers."""
    return any(key.endswith(CLS) for key in tensors)


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a vision transformer as timm does, and join query, key and value.

    With registers the position of the class token is added to it, as timm expects.
    """
    prefix = next(key for key in tensors if key.endswith(CLS)).removesuffix(CLS)
    named: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(prefix)
        if UNUSED.search(name):
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if match := QKV.match(name):
            block, part, kind = match.groups()
            parts.setdefault(f"{block}.attn.qkv.{kind}", {})[part] = tensor
        else:
            named[name] = tensor
    for key, found in parts.items():
        if found.keys() >= {"query", "key", "value"}:
            named[key] = torch.cat([found[part] for part in ("query", "key", "value")])
    token = named.pop(CLS)
    positions = named.pop("embeddings.position_embeddings", None)
    registers = named.pop("embeddings.register_tokens", None)
    if registers is not None and positions is not None:
        token, positions = token + positions[:, :1], positions[:, 1:]
        named["reg_token"] = registers
    named["cls_token"] = token
    if positions is not None:
        named["pos_embed"] = positions
    return named


def timm_arguments(config: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    """Return the arguments of timm's ``vit_base_patch16_224`` for a ``config.json``.

    Parameters
    ----------
    config : mapping of str to object
        Of a ViTModel or Dinov2Model.

    Raises
    ------
    KeyError
        If an entry is missing.
    """

    def number(key: str) -> float:
        value = config[key]
        if not isinstance(value, (int, float)):
            raise KeyError(key)
        return value

    width = int(number("hidden_size"))
    is_gated = bool(config.get("use_swiglu_ffn"))
    if "mlp_ratio" in config:
        inner = int(width * number("mlp_ratio"))
    else:
        inner = int(number("intermediate_size"))
    if is_gated:
        inner = 2 * ((int(inner * 2 / 3) + 7) // 8 * 8)
    ratio = inner / width
    found: dict[str, bool | int | float | str] = {
        "patch_size": int(number("patch_size")),
        "embed_dim": width,
        "depth": int(number("num_hidden_layers")),
        "num_heads": int(number("num_attention_heads")),
        "mlp_ratio": ratio if int(width * ratio) == inner else (inner + 0.5) / width,
        "qkv_bias": bool(config.get("qkv_bias", True)),
    }
    if "layerscale_value" in config:
        found["init_values"] = float(number("layerscale_value"))
    if is_gated:
        found |= {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
    if config.get("num_register_tokens"):
        found |= {"reg_tokens": int(number("num_register_tokens")), "no_embed_class": True}
    return found
