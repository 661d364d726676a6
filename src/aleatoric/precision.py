"""bfloat16: where it is native (elsewhere it is emulated, correct and several times slower), and how to ask for it.

And what rounding leaves undecided.
"""

from __future__ import annotations

import contextlib

import torch

__all__ = ["TIE", "autocast_to_bf16", "bf16_is_native"]

TIE = 1e-6  # of probabilities: more than the rounding of their mean, less than a sample of the most that anyone draws


def bf16_is_native(device: torch.device | str = "cpu") -> bool:
    """True where bfloat16 is faster than float32: recent GPUs, CPUs with AVX512-BF16 or AMX.

    Example:
        >>> bf16_is_native("cpu") in (True, False)
        True
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        abilities = torch.cpu.get_capabilities()
        return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return False


def autocast_to_bf16(device_type: str, enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Run what follows in bfloat16 under autocast; without, an autocast that is around (MONAI's ``amp``) stays."""
    return torch.autocast(device_type, dtype=torch.bfloat16) if enabled else contextlib.nullcontext()
