"""Finds the parser of a command by the command's name."""

from __future__ import annotations

import importlib

from toughen.config.parsing import Parser


def parser_of(command: str) -> Parser:
    """The parser of a command, from ``NAME_parser()`` in the module ``toughen.cli.NAME``."""
    parser = getattr(importlib.import_module(f"toughen.cli.{command}"), f"{command}_parser")()
    assert isinstance(parser, Parser)
    return parser
