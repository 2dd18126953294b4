"""Values that the shell completes. Errors while looking up names are ignored, so that they do not disturb typing."""

import contextlib
from collections.abc import Iterable


def codec_names(incomplete: str) -> list[str]:
    """The codecs of this machine."""
    with contextlib.suppress(Exception):
        from codec.registry import names

        return _beginning(names(), incomplete)
    return []


def metric_names(incomplete: str) -> list[str]:
    """The registered metrics."""
    with contextlib.suppress(Exception):
        from codec.entry_points import registered

        return _beginning(registered("clic_allocator.metrics"), incomplete)
    return []


def solver_names(incomplete: str) -> list[str]:
    """The installed PuLP solvers."""
    with contextlib.suppress(Exception):
        from allocator.solver.pulp_solvers import list_solvers

        return _beginning(list_solvers(), incomplete)
    return []


def edition_names(incomplete: str) -> list[str]:
    """The editions of the challenge."""
    with contextlib.suppress(Exception):
        from submissions.edition import edition_names as known

        return _beginning(known(), incomplete)
    return []


def recipe_names(incomplete: str) -> list[str]:
    """The included recipes; their module is not imported, because it loads torch, which takes too long here."""
    with contextlib.suppress(Exception):
        from importlib.resources import files

        recipes = files("codec").joinpath("training", "recipes").iterdir()
        return _beginning(
            (one.name.removesuffix(".toml") for one in recipes if one.name.endswith(".toml")), incomplete
        )
    return []


def bank_names(incomplete: str) -> list[str]:
    """The banks that are known by name."""
    with contextlib.suppress(Exception):
        from codec.bank_folders import bank_folders

        return _beginning(bank_folders(), incomplete)
    return []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
