"""Which nets may be created because a run's file names them: files are not trusted, and other names import code."""

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


def is_plain_timm(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a net is in timm's registry and its settings are plain, so that creating it runs no code but timm's.

    ``pretrained`` is allowed as true or false: it is left out when the net is created, as the run has the weights.
    """
    plain = (
        type(value) is bool if key == "pretrained" else key in _SETTINGS and _is_plain(value)
        for key, value in settings.items()
    )
    return _TIMM.fullmatch(name) is not None and all(plain)


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and _WORD.fullmatch(value) is not None)


def may_be_created(name: object, settings: object) -> bool:
    """Whether a net may be created because a file names it; any other net must be named by the user."""
    if not isinstance(name, str) or not isinstance(settings, dict):
        return False
    return ":" not in name or is_plain_timm(name, settings)


def check_may_be_created(name: object, settings: object, source: str) -> None:
    """Check that a net may be created because a file names it.

    Args:
        name, settings: as the file has them.
        source: the file, in the message.

    Raises:
        ValueError: it must be named by the user.
    """
    if not may_be_created(name, settings):
        raise ValueError(
            f"{source} names the model {name!r} with its settings, and from a file toughen makes only its own nets and "
            "plain ones of timm's: if you trust it, give --model package.module:function or timm:NAME yourself"
        )
