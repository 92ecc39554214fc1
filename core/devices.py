"""What a device can compute."""

from __future__ import annotations

import torch

__all__ = ["computes_in_bfloat16"]


def computes_in_bfloat16(device: str) -> bool:
    """Whether a device has instructions for bfloat16; without them it is slower than float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # in newer releases alone
    if capabilities is None:
        return torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return any(capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
