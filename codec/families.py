"""Families of networks, as manifests speak of them. A decoder brings only the family that its bank is of."""

import dataclasses
import importlib
from typing import Any

from codec.network import NetworkConfig

FAMILIES = {"dkic": "codec.dkic:DKICConfig", "llic": "codec.llic:LLICConfig"}
"""Each family's configuration, as module and class."""


def to_json(config: NetworkConfig) -> dict[str, Any]:
    """A configuration for a manifest; its family comes first, values that an absent field means are left out."""
    absent = _absent(type(config))
    fields = dataclasses.asdict(config).items()
    return {"family": config.family} | {key: value for key, value in fields if (key, value) not in absent.items()}


def from_json(content: dict[str, Any]) -> NetworkConfig:
    """The configuration that :func:`to_json` gave.

    Raises:
        ValueError: its family or a field is unknown or doesn't fit.
    """
    fields = dict(content)
    family = fields.pop("family", "dkic")  # once there was no other
    if family not in FAMILIES:
        raise ValueError(f"Unknown network family {family!r}; use {', '.join(FAMILIES)}.")
    module, _, name = FAMILIES[family].partition(":")
    kind: type[NetworkConfig] = getattr(importlib.import_module(module), name)
    return kind.from_dict(_absent(kind) | fields)


def _absent(kind: type[NetworkConfig]) -> dict[str, Any]:
    """What manifests without a later field mean; see :func:`codec.network.later`."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata["absent"] for field in fields if "absent" in field.metadata}
