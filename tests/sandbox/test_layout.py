"""The public names of the sandbox, its parts, and its imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import herdbook.sandbox as room
from herdbook.sandbox.models.catalogue import read_catalogue

FILES = sorted(Path(room.__file__).parent.rglob("*.py"))


def imported() -> set[str]:
    found: set[str] = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
    return found


def test_sandbox_imports_no_other_package() -> None:
    modules = {name for name in imported() if name.startswith("herdbook")}
    foreign = {name.partition(".")[0] for name in imported()} - set(
        sys.stdlib_module_names
    )

    assert all(name.startswith("herdbook.sandbox") for name in modules)
    assert foreign == {"herdbook", "msgspec", "uvicorn"}


def test_package_exports_the_names_in_its_list() -> None:
    tree = ast.parse(Path(room.__file__).read_text())
    brought = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }

    assert set(room.__all__) == brought


def test_digests_are_the_same_in_every_process() -> None:
    program = (
        "from herdbook.sandbox.models.catalogue import read_catalogue as read;"
        "print(read().library['gemma3:27b'].manifest.digest)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    here = read_catalogue().library["gemma3:27b"].manifest.digest
    assert result.stdout.strip() == here


def test_aliases_in_the_library_share_their_content() -> None:
    library = read_catalogue().library

    assert library["llama3.1:latest"] == library["llama3.1:8b"]


def test_sets_name_models_of_the_library() -> None:
    catalogue = read_catalogue()

    assert {*catalogue.sets["some"]} <= catalogue.library.keys()
