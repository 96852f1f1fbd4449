"""List the tensors that weights of a known build are made of.

Invariant: names and shapes follow from the lengths in the description of the weights.
"""

from __future__ import annotations

from herdbook.sandbox.models.artifacts import Weights
from herdbook.sandbox.request_bodies import Json


def tensors_of(weights: Weights) -> list[Json]:
    """List the tensors as ``show`` does: name, type and shape."""
    build = _bert if weights.architecture.endswith("bert") else _llama
    return build(weights)


def _llama(weights: Weights) -> list[Json]:
    width = weights.embedding_length
    inner = _number(weights, "feed_forward_length")
    words = _number(weights, "vocab_size") or weights.tokens or 32_000
    listed = [
        _tensor("output.weight", width, words),
        _tensor("output_norm.weight", width),
        _tensor("token_embd.weight", width, words),
    ]
    for block in range(_number(weights, "block_count")):
        listed += [
            _tensor(f"blk.{block}.attn_k.weight", width, width),
            _tensor(f"blk.{block}.attn_norm.weight", width),
            _tensor(f"blk.{block}.attn_output.weight", width, width),
            _tensor(f"blk.{block}.attn_q.weight", width, width),
            _tensor(f"blk.{block}.attn_v.weight", width, width),
            _tensor(f"blk.{block}.ffn_down.weight", inner, width),
            _tensor(f"blk.{block}.ffn_gate.weight", width, inner),
            _tensor(f"blk.{block}.ffn_norm.weight", width),
            _tensor(f"blk.{block}.ffn_up.weight", width, inner),
        ]
    return listed


def _bert(weights: Weights) -> list[Json]:
    width = weights.embedding_length
    inner = _number(weights, "feed_forward_length")
    words = _number(weights, "vocab_size") or weights.tokens or 30_522
    position = _tensor("position_embd.weight", width, weights.context_length)
    types = _tensor("token_types.weight", width, 2)
    listed: list[Json] = [
        position | {"type": "F32"},
        _tensor("token_embd.weight", width, words),
        _tensor("token_embd_norm.bias", width),
        _tensor("token_embd_norm.weight", width),
        types | {"type": "F32"},
    ]
    for block in range(_number(weights, "block_count")):
        for name in ("attn_k", "attn_output", "attn_output_norm", "attn_q", "attn_v"):
            shape = (width,) if name.endswith("norm") else (width, width)
            listed.append(_tensor(f"blk.{block}.{name}.bias", width))
            listed.append(_tensor(f"blk.{block}.{name}.weight", *shape))
        listed += [
            _tensor(f"blk.{block}.ffn_down.bias", width),
            _tensor(f"blk.{block}.ffn_down.weight", inner, width),
            _tensor(f"blk.{block}.ffn_up.bias", inner),
            _tensor(f"blk.{block}.ffn_up.weight", width, inner),
            _tensor(f"blk.{block}.layer_output_norm.bias", width),
            _tensor(f"blk.{block}.layer_output_norm.weight", width),
        ]
    return listed


def _tensor(name: str, *shape: int) -> Json:
    kind = "F32" if len(shape) == 1 else "F16"
    return {"name": name, "type": kind, "shape": list(shape)}


def _number(weights: Weights, key: str) -> int:
    value = weights.info.get(key, 0)
    return value if isinstance(value, int) else 0
