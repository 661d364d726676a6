"""The QUBIQ challenges, as they were released."""

from __future__ import annotations

from .command import prepare_qubiq

__all__ = ["prepare_qubiq"]
