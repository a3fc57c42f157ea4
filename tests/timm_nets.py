"""timm's nets in tests: small ones of three kinds, where timm is installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

NETS: dict[str, dict[str, Any]] = {
    "timm:resnet18": {},
    "timm:mobilenetv3_small_050": {},
    "timm:vit_tiny_patch16_224": {"img_size": 28, "patch_size": 7},
}
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="needs timm: pip install 'toughen[timm]'"
)
