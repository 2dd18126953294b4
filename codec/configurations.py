"""The networks that have names, and the families that manifests speak of."""

from codec.dkic import COMPACT, REFERENCE
from codec.llic import LLIC_ELIC, LLIC_STF, LLIC_TCM, compact
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


def find_configuration(name: str) -> NetworkConfig:
    """The configuration of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in CONFIGURATIONS:
        raise ValueError(f"There is no configuration {name!r}; there are {', '.join(CONFIGURATIONS)}.")
    return CONFIGURATIONS[name]
