"""The networks that have names, and the families that manifests speak of."""

import dataclasses
from typing import Any

from codec.dkic import COMPACT, REFERENCE, DKICConfig
from codec.llic import LLIC_ELIC, LLIC_STF, LLIC_TCM, LLICConfig, compact
from codec.network import NetworkConfig

CONFIGURATIONS: dict[str, NetworkConfig] = {
    "reference": REFERENCE,
    "compact": COMPACT,
    "llic-stf": LLIC_STF,
    "llic-elic": LLIC_ELIC,
    "llic-tcm": LLIC_TCM,
    "llic-stf-compact": compact(LLIC_STF),
    "llic-elic-compact": compact(LLIC_ELIC),
    "llic-tcm-compact": compact(LLIC_TCM),
}
FAMILIES: dict[str, type[NetworkConfig]] = {config.family: config for config in (DKICConfig, LLICConfig)}


def find_configuration(name: str) -> NetworkConfig:
    """The configuration of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in CONFIGURATIONS:
        raise ValueError(f"There is no configuration {name!r}; there are {', '.join(CONFIGURATIONS)}.")
    return CONFIGURATIONS[name]


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
    family = fields.pop("family", DKICConfig.family)  # once there was no other
    if family not in FAMILIES:
        raise ValueError(f"There is no family {family!r} of networks; there are {', '.join(FAMILIES)}.")
    return FAMILIES[family].from_dict(_absent(FAMILIES[family]) | fields)


def _absent(kind: type[NetworkConfig]) -> dict[str, Any]:
    """What manifests without a later field mean; see :func:`codec.network.later`."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata["absent"] for field in fields if "absent" in field.metadata}
