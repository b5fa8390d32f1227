"""Reads the recipes of CONTRIBUTING.md, and writes their files where they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import ecrl
from tests.support.paths import ROOT

PARTS = ("strategy", "objective", "environment", "engine", "monitor")


@dataclass(frozen=True)
class Piece:
    """A block of code: a file, or the end of a list in a file that exists.

    Attributes:
        path: of the file, from the root of the repository.
        text: the code.
        container: name of the list or dictionary that the text is added to; empty for a whole file.
    """

    path: str
    text: str
    container: str = ""

    @property
    def module(self) -> str:
        """Its name as a module of the package, e.g. ``ecrl.callbacks.kl_cov``."""
        return "ecrl." + self.path.removesuffix(".py").removeprefix("ecrl/").replace("/", ".")


@dataclass(frozen=True)
class Recipe:
    """The files of a part, and the commands that use it, from inside and from outside the repository."""

    pieces: list[Piece]
    inside: list[list[str]]
    outside: list[list[str]]


def section(text: str, title: str) -> str:
    """The section of a Markdown text whose title begins so."""
    (found,) = re.findall(rf"^(#+) {title}[^\n]*\n(.*?)(?=^#+ |\Z)", _without_code_titles(text), re.M | re.S)
    return found[1].replace("\0", "#")


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks of a Markdown text in these languages."""
    return [code for language, code in re.findall(r"```(\w+)\n(.*?)```", text, re.S) if language in languages]


def read_piece(block: str) -> Piece:
    """Read a block whose first line says where it belongs."""
    first, _, code = block.partition("\n")
    place = re.fullmatch(r"# (\S+?)(?:, at the end of (\w+))?", first)
    assert place, f"the first line of a recipe's block names its file, got {first!r}"
    return Piece(place[1], code, place[2] or "")


def read_recipe(part: str) -> Recipe:
    """Read the recipe of a part."""
    text = section((ROOT / "CONTRIBUTING.md").read_text(), f"An? {part}")
    pieces = [read_piece(block) for block in blocks(text, "python", "yaml")]
    shell = "".join(blocks(text, "bash"))
    commands = [line.partition("#")[0].split()[1:] for line in shell.splitlines()]
    inside = [words for words in commands if "mypkg" not in " ".join(words)]
    outside = [words for words in commands if words not in inside]
    if part == "environment":  # its outside is the guide's
        return Recipe(pieces, inside, [["train", "env=mypkg.reverse:me/Reverse-v0"]])
    with_folder = [["train", "--config-dir", "my_configs", *words[1:]] for words in inside]
    return Recipe(pieces, inside, with_folder + outside)


def write_inside(root: Path, pieces: list[Piece]) -> None:
    """Write a recipe's files into a copy of the repository."""
    for piece in pieces:
        file = root / piece.path
        if not piece.container:
            assert not file.exists(), f"{piece.path} exists already"
            file.parent.mkdir(exist_ok=True)
            file.write_text(piece.text)
            continue
        before, opening, rest = file.read_text().partition(f"\n{piece.container} = ")
        body, closing, after = re.split(r"(?<=\n)([\]}]\n)", rest, maxsplit=1)
        file.write_text(before + opening + body + piece.text + closing + after)


def write_outside(root: Path, pieces: list[Piece]) -> None:
    """Write a recipe's files into a user's folder, at the places that the table above the recipes names."""
    modules = [piece.module for piece in pieces if piece.path.endswith(".py")]
    for piece in pieces:
        if piece.container:
            continue
        file, text = root / "mypkg" / Path(piece.path).name, public_imports(piece.text)
        if piece.path.startswith("configs/"):
            file, text = root / piece.path.replace("configs/", "my_configs/"), piece.text
            for module in modules:
                text = text.replace(module, f"mypkg.{module.rpartition('.')[2]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def public_imports(code: str) -> str:
    """Import what is public from ``ecrl`` itself."""

    def from_root(line: re.Match[str]) -> str:
        public = set(line[1].split(", ")) <= set(ecrl.__all__)
        return f"from ecrl import {line[1]}" if public else line[0]

    return re.sub(r"^from ecrl\.[\w.]+ import (.+)$", from_root, code, flags=re.M)


def _without_code_titles(text: str) -> str:
    """Hide the ``#`` of comments in code blocks, which look like titles."""
    return re.sub(r"```.*?```", lambda block: block[0].replace("#", "\0"), text, flags=re.S)
