"""The papers' nets by name, timm's by ``timm:NAME``, and a user's own by ``package.module:function``.

A model takes images [n, c, h, w] in [0, 1] and returns logits [n, k]; normalisation, where wanted, is its first layer.
A new net is one class in a file of this folder and one line in ``registry.py``.
"""

from toughen.models.checks import check as check
from toughen.models.external import pretrained as pretrained
from toughen.models.normalize import Normalize as Normalize
from toughen.models.reconstructor import create_reconstructor as create_reconstructor
from toughen.models.registry import create as create
from toughen.models.registry import describe as describe
from toughen.models.registry import from_description as from_description
from toughen.models.registry import knows as knows
from toughen.models.registry import names as names
from toughen.models.registry import summaries as summaries
from toughen.models.registry import takes as takes

__all__ = [
    "Normalize",
    "check",
    "create",
    "create_reconstructor",
    "describe",
    "from_description",
    "names",
    "pretrained",
    "summaries",
]
