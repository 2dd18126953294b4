"""Families of networks, as named in manifests. A decoder includes only the family of its bank."""

import dataclasses
import importlib
from typing import Any

from codec.network import NetworkConfig

FAMILIES = {"dkic": "codec.dkic:DKICConfig", "llic": "codec.llic:LLICConfig"}
"""The module and class of each family's configuration."""


def to_json(config: NetworkConfig) -> dict[str, Any]:
    """A configuration for a manifest: the family first, without fields whose absence means their value."""
    absent = _absent(type(config))
    fields = dataclasses.asdict(config).items()
    return {"family": config.family} | {key: value for key, value in fields if (key, value) not in absent.items()}


def from_json(content: dict[str, Any]) -> NetworkConfig:
    """The inverse of :func:`to_json`.

    Raises:
        ValueError: its family or a field is unknown or invalid.
    """
    fields = dict(content)
    family = fields.pop("family", "dkic")  # the only family in old manifests
    if family not in FAMILIES:
        raise ValueError(f"Unknown network family {family!r}; use {', '.join(FAMILIES)}.")
    module, _, name = FAMILIES[family].partition(":")
    kind: type[NetworkConfig] = getattr(importlib.import_module(module), name)
    return kind.from_dict(_absent(kind) | fields)


def _absent(kind: type[NetworkConfig]) -> dict[str, Any]:
    """The values of fields that older manifests lack; see :func:`codec.network.later`."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata["absent"] for field in fields if "absent" in field.metadata}
