"""What tells weights and images from others, the same in every process and on every device."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def of_tensor(tensor: Tensor) -> str:
    """32 hexadecimal digits of a tensor's bytes."""
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().tobytes(), digest_size=16).hexdigest()


def of_weights(net: nn.Module) -> str:
    """32 hexadecimal digits of all that a net's state holds, and of its names."""
    parts = [f"{name} {of_tensor(tensor)}" for name, tensor in net.state_dict().items()]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
