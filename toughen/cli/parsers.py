"""The parser of each command by its name."""

from __future__ import annotations

import importlib

from toughen.config.parsing import Parser


def parser_of(command: str) -> Parser:
    """The parser of a command: ``NAME_parser`` in the file of its name."""
    parser = getattr(importlib.import_module(f"toughen.cli.{command}"), f"{command}_parser")()
    assert isinstance(parser, Parser)
    return parser
