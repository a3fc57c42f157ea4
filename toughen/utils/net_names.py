"""Which nets a run's files may name. They are untrusted, and a name of one's own would be imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# package.module:function, and whatever timm may be asked for
TYPED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*|timm:[\w.:/@-]{1,200}", re.ASCII)
# of timm's registry; with another colon or a slash timm would look on the hub, or in a folder
_TIMM = re.compile(r"timm:[a-z0-9_]{1,99}(\.[a-z0-9_]{1,99})?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_]{1,40}", re.ASCII)
_SETTINGS = frozenset(  # of timm's nets, of their layers alone: none names a file, an address or code
    "act_layer attn_drop_rate base_width cardinality class_token depth drop_block_rate drop_path_rate drop_rate "
    "embed_dim global_pool head_drop_rate img_size init_values mlp_ratio norm_layer num_heads output_stride "
    "patch_drop_rate patch_size pos_drop_rate proj_drop_rate qk_norm qkv_bias stem_type stem_width window_size".split()
)


def of_registry(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a net is one of timm's registry with plain settings, so that making it runs nobody's code but timm's.

    ``pretrained``, true or false, is let through: whoever makes the net from a file leaves it out, as the weights are
    the run's.
    """
    plain = (
        type(value) is bool if key == "pretrained" else key in _SETTINGS and _is_plain(value)
        for key, value in settings.items()
    )
    return _TIMM.fullmatch(name) is not None and all(plain)


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and _WORD.fullmatch(value) is not None)


def made_by_itself(name: object, settings: object) -> bool:
    """Whether a net is made because a file names it; any other one is only where the user names it."""
    if not isinstance(name, str) or not isinstance(settings, dict):
        return False
    return ":" not in name or of_registry(name, settings)
