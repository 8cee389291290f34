"""Adaptive anti-aliasing for detection and segmentation networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aa_plugins.config import AAConfig
    from aa_plugins.config_files import get_config_file, list_config_files
    from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d
    from aa_plugins.surgery import AntialiasReport, antialias

__version__ = "0.1.0"

__all__ = [
    "AAConfig",
    "AdaptiveBlurPool2d",
    "AntialiasReport",
    "BlurPool2d",
    "FilterBankPool2d",
    "antialias",
    "get_config_file",
    "list_config_files",
]

# Where each name lives. Loaded when it is first asked for: `aa-plugins --help` needs no torch.
_ROOMS = {
    "AAConfig": "config",
    "AdaptiveBlurPool2d": "layers",
    "AntialiasReport": "surgery",
    "BlurPool2d": "layers",
    "FilterBankPool2d": "layers",
    "antialias": "surgery",
    "get_config_file": "config_files",
    "list_config_files": "config_files",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
