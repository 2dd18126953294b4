"""Imports go in one direction: ``submissions`` to ``allocator`` to ``codec``; decoders import what they need."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("codec", "allocator", "submissions")
KNOW_ALL = ("allocator.api", "allocator.cli", "allocator")
"""They may import from every layer, and nothing but themselves and entry points imports them."""
DEFAULTS = {("codec.base", "codec.picture")}
"""Circles by design: defaults of methods of :class:`codec.base.Codec`, imported only as they are called."""
DECODERS_RUN = ("codec.learned", "codec.pillow", "codec.model_codec", "submissions.decoding")
NOT_IN_DECODERS = (
    "allocator",
    "codec.training",
    "codec.registry",
    "codec.entry_points",
    "codec.code_digest",
    "codec.bank_builder",
    "codec.command",
    "codec.remote",
)

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for layer in LAYERS
    for path in ROOT.joinpath(layer).rglob("*.py")
}


def imported(module: str, *, inside_functions: bool) -> set[str]:
    """The project's modules that one imports, but for type checkers."""
    found: set[str] = set()

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                if inside_functions or not inside:
                    found.update(targets(child))
            else:
                visit(child, inside or isinstance(child, ast.FunctionDef))

    visit(ast.parse(MODULES[module].read_text()), False)
    return found - {module}


def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    for alias in node.names:
        names = [alias.name] if isinstance(node, ast.Import) else [f"{node.module}.{alias.name}", node.module or ""]
        yield from [name for name in names if name in MODULES][:1]


ALL = {module: imported(module, inside_functions=True) for module in MODULES}


def reached(modules: set[str], graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [*modules]
    while left:
        if (module := left.pop()) not in seen:
            seen.add(module)
            left += graph[module]
    return seen


def knows_all(module: str) -> bool:
    return module in KNOW_ALL or module.startswith(("allocator.cli.", "allocator.__main__"))


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_layer_above_its_own(module: str) -> None:
    if not knows_all(module):
        layer = LAYERS.index(module.partition(".")[0])
        for other in ALL[module]:
            assert LAYERS.index(other.partition(".")[0]) <= layer, other
            assert not knows_all(other), other


def test_there_are_no_circular_imports_even_inside_functions() -> None:
    graph = {module: {other for other in found if (module, other) not in DEFAULTS} for module, found in ALL.items()}
    circles = {module for module in graph if module in reached(graph[module], graph)}
    assert circles == set()


@pytest.mark.parametrize("module", DECODERS_RUN)
def test_decoding_modules_do_not_import_packing_training_or_networking(module: str) -> None:
    graph = {
        one: imported(one, inside_functions=False) - {"codec"} for one in MODULES
    }  # codec/__init__ only gathers names, and decoders' copy finds them when they are used
    assert not [other for other in reached({module}, graph) if other.startswith(NOT_IN_DECODERS)]
