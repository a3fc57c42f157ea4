"""Writing files so that a kill at any moment leaves the old one or the new one, whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toughen.utils.paths import is_text

if TYPE_CHECKING:  # imported where it is used: reports read and write files without torch
    from torch import Tensor

WRITTEN = (".json", ".jsonl", ".safetensors", ".yaml", ".parquet", ".html", ".png", ".csv", ".txt")  # what is written

DIGEST, UNKNOWN = "digest", "0" * 32  # of a file of tensors, and what stands in its place while it is taken


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in its place in one rename."""
    temporary = temporary_name(path)
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """The name beside ``path`` under which this process prepares it."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def clear_temporaries(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a folder; what is not ours stays."""
    for path in folder.glob(".*"):
        written, _, process = path.name.removeprefix(".").rpartition(".")
        if Path(written).suffix in WRITTEN and process.isdigit() and not _writes(int(process)):
            path.unlink(missing_ok=True)


def _writes(process: int) -> bool:
    """Whether another process of this number is alive here."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def check_writable(folder: Path) -> None:
    """See that files can be written to a folder, or that it can be made, before time is spent on what they will hold.

    Raises:
        ValueError: they can't, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose another --out")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"cannot write to {folder}, as {nearest} is a file: choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to {folder} (Permission denied): choose another --out")


def check_takes_tensors(folder: Path) -> None:
    """``check_writable`` for a folder of tensors, whose library writes only to paths in UTF-8.

    Raises:
        ValueError: files can't be written there, it is a file, or its path is not UTF-8.
    """
    if not is_text(str(folder)):
        raise ValueError(f"the path {folder} is not UTF-8, so weights cannot be written there: choose another --out")
    check_writable(folder)


def write_bytes(path: Path, content: bytes) -> None:
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors and, as JSON in the file's metadata, everything else that belongs to them, and a digest of all.

    Args:
        path: the file.
        tensors: by name.
        about: plain data, as JSON has it.
        metadata: more texts for the metadata, for other programs.
    """
    import torch
    from safetensors.torch import save

    plain = {
        name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, tensor in tensors.items()
    }
    content = save(plain, {**(metadata or {}), "about": json.dumps({DIGEST: UNKNOWN, **(about or {})})})
    known = content.replace(_entry(UNKNOWN), _entry(hashlib.blake2b(content, digest_size=16).hexdigest()), 1)
    write_bytes(path, known)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write_tensors`` wrote.

    A file without a digest, as other programs and earlier versions write it, is read as it is.

    Raises:
        ValueError: the file is not whole, or not of this kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if isinstance(about, dict) and not _is_whole(path, about.pop(DIGEST, None)):
                raise ValueError(f"{path} is damaged (its checksum is wrong): restore it, or train again")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, json.JSONDecodeError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it from a copy, or train again") from None
    if not isinstance(about, dict):
        raise ValueError(f"{path} is damaged (its metadata is not a mapping): restore it from a copy")
    return tensors, about


def _entry(digest: str) -> bytes:
    """A digest as it stands in a file's head: JSON within JSON."""
    return f'\\"{DIGEST}\\": \\"{digest}\\"'.encode()


def _is_whole(path: Path, digest: object) -> bool:
    """Whether a file has the digest that it names, if it names one; its head is readable."""
    if digest is None:
        return True
    with path.open("rb") as file:
        start = file.read(8)
        head = file.read(int.from_bytes(start, "little"))
        hasher = hashlib.blake2b(start + head.replace(_entry(str(digest)), _entry(UNKNOWN), 1), digest_size=16)
        while chunk := file.read(2**20):
            hasher.update(chunk)
    return hasher.hexdigest() == digest


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it from a copy, or train again") from None


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of a JSON file; {} where it is missing, damaged or holds something else."""
    try:
        fields = read_json(path)
    except (ValueError, FileNotFoundError):
        return {}
    return fields if isinstance(fields, dict) else {}


def sha256(path: Path) -> str:
    """The SHA-256 hash of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no floating-point tensor holds NaN or infinity."""
    return all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())
