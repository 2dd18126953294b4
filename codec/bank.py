"""A bank on disk: a folder with the levels of one learned codec, their weights, and the integer tables.

``manifest.json`` says what the network is, which weights and gain each level has, and the SHA-256 of every file.
Levels share one file of weights and differ by gains, or have a file each; to everything else that is the same.
"""

import copy
import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.base import CodecError, is_codec_name
from codec.bitstream import MAX_LEVELS
from codec.configurations import find_configuration, from_json, to_json
from codec.entropy.tables import SCALES, FrequencyTable, gaussian_tables, make_tables, pack_tables, unpack_tables
from codec.image import is_safe_name, write_file
from codec.network import CompressionNetwork, NetworkConfig
from codec.registry import BANK_MANIFEST, CODECS, bank_folder
from codec.weights import WeightsError, parse_tensors, read_tensors, write_tensors

FORMAT = 1
TABLES = "tables.safetensors"


class BankError(CodecError):
    """A bank is missing, damaged, or made for another version."""


@dataclass(frozen=True)
class Level:
    """One quality level."""

    label: str
    weights: str
    """File of its weights, within the bank's folder."""
    gain: int = 0
    """Which of the weights' gains it uses."""


@dataclass(frozen=True)
class Bank:
    """A bank's manifest. Networks and tables are loaded when they are asked for."""

    folder: Path
    name: str
    """The codec's name on the command line and in tables."""
    config: NetworkConfig
    levels: tuple[Level, ...]
    """Fewest bytes first."""
    files: dict[str, str]
    """SHA-256 of every file, in hex."""
    notes: dict[str, Any] = field(default_factory=dict)
    """How it was trained, what it is for."""

    @property
    def identity(self) -> str:
        """Changes with whatever changes bytes or latents: 64 hex digits, of which streams carry the first four."""
        parts = [FORMAT, to_json(self.config), [dataclasses.asdict(x) for x in self.levels], self.files]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Bank":
        """Read a bank's manifest.

        Raises:
            BankError: there is none, or it makes no sense.
        """
        path = Path(folder, BANK_MANIFEST)
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != FORMAT:
                raise BankError(f"{path}: is of format {content['format']}; this version reads {FORMAT}.")
            bank = cls(
                Path(folder),
                str(content["name"]),
                from_json(content["configuration"]),
                tuple(Level(**level) for level in content["levels"]),
                dict(content["files"]),
                dict(content.get("notes", {})),
            )
            bank._validate()
        except FileNotFoundError:
            raise BankError(f"{folder}: holds no bank (there is no {BANK_MANIFEST}).") from None
        except OSError as error:
            raise BankError(f"{path}: can't be read ({error.strerror}).") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BankError(f"{path}: is no bank's manifest, or a damaged one ({error}).") from error
        return bank

    def _validate(self) -> None:
        wanted = {level.weights for level in self.levels} | {TABLES}
        if not 0 < len(self.levels) <= MAX_LEVELS or not all(0 <= x.gain < self.config.levels for x in self.levels):
            raise BankError(f"{self.folder}: its levels make no sense.")
        if not is_codec_name(self.name):
            raise BankError(
                f"{self.folder}: {self.name!r} can't be a codec's name; use letters, digits, -, +, _ and ."
            )
        if missing := wanted - self.files.keys():
            raise BankError(f"{self.folder}: its manifest doesn't list {', '.join(sorted(missing))}.")
        if not all(is_safe_name(name) for name in self.files):
            raise BankError(f"{self.folder}: its manifest names files outside its folder.")

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of the bank's files, checked by its SHA-256.

        Raises:
            BankError: it isn't the file that the manifest describes.
            WeightsError: it can't be read.
        """
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BankError(f"{path}: can't be read ({error.strerror}).") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.files[name]:
            raise BankError(f"{path}: isn't the file that the manifest describes (its SHA-256 differs).")
        return parse_tensors(data, path)[0]

    def network(self, weights: str) -> CompressionNetwork:
        """The network with one of the bank's files of weights, in float32, for evaluation.

        Raises:
            BankError: the weights don't fit the configuration.
        """
        with torch.device("meta"):
            network = CompressionNetwork(self.config)
        tensors = {name: tensor.float() for name, tensor in self.read(weights).items()}
        try:
            network.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise BankError(f"{self.folder / weights}: doesn't fit the configuration in the manifest.") from error
        return network.eval().requires_grad_(False)

    def tables(self) -> tuple[list[list[FrequencyTable]], list[FrequencyTable]]:
        """Of each level the tables of the hyper-latents' channels, and the tables of the latents' scales.

        Raises:
            BankError: they make no sense.
        """
        tensors = self.read(TABLES)
        try:
            hyper, latent = (
                unpack_tables({key.partition(".")[2]: t for key, t in tensors.items() if key.startswith(part)})
                for part in ("hyper.", "latent.")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BankError(f"{self.folder / TABLES}: holds no tables ({error}).") from error
        channels = self.config.hyper
        if len(hyper) != channels * len(self.levels) or len(latent) != SCALES:
            raise BankError(f"{self.folder / TABLES}: lacks tables.")
        return [hyper[i : i + channels] for i in range(0, len(hyper), channels)], latent


def create_bank(
    folder: str | os.PathLike[str],
    name: str,
    networks: Sequence[CompressionNetwork],
    labels: Sequence[str] | None = None,
    notes: dict[str, Any] | None = None,
    half: bool = True,
) -> Bank:
    """Write a bank.

    Args:
        folder: made if missing; an older bank there is replaced.
        name: the codec's name.
        networks: one network whose gains are the levels; or one for each level, fewest bytes first, all of one
            configuration. A network that stands there more than once is stored once; where networks have gains for
            all levels, each level uses its own.
        labels: of the levels, fewest bytes first; by default ``g0``, ``g1``, ...
        notes: how it was trained, kept in the manifest.
        half: store weights with 16 bits, which is what a decoder then computes with, too.

    Raises:
        BankError: the networks don't make a bank.
        ImageError: a file can't be written.
    """
    config = networks[0].config
    networks = list(networks) * (config.levels if len(networks) == 1 else 1)
    count = len(networks)
    if config.levels not in (1, count) or any(network.config != config for network in networks):
        raise BankError("A bank is one network with several gains, or a network of one configuration for each level.")
    if not is_codec_name(name) or name in importlib.metadata.entry_points(group=CODECS).names:
        raise BankError(
            f"{name!r} can't be a bank's name; use letters, digits, -, +, _ and ., and no other codec's name."
        )
    labels = labels or [f"g{i}" for i in range(count)]
    if len(labels) != count or len(set(labels)) != count:
        raise BankError(f"A bank of {count} levels needs as many labels, all different.")
    target = Path(folder)
    different = list({id(network): network for network in networks}.values())
    files = (
        ["weights.safetensors"]
        if len(different) == 1
        else [f"weights-{i:02}.safetensors" for i in range(len(different))]
    )
    tables: dict[str, list[list[FrequencyTable]]] = {}
    for network, file in zip(different, files, strict=True):
        tensors = {key: _stored(key, value, half) for key, value in network.state_dict().items()}
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise BankError(f"{file} would hold weights that aren't finite.")
        write_tensors(target / file, tensors)
        stored = CompressionNetwork(config)
        stored.load_state_dict({key: value.float() for key, value in tensors.items()})
        tables[file] = make_hyper_tables(stored)
    file_of = {id(network): file for network, file in zip(different, files, strict=True)}
    levels = tuple(
        Level(label, file_of[id(network)], i if config.levels > 1 else 0)
        for i, (label, network) in enumerate(zip(labels, networks, strict=True))
    )
    every_table = [table for level in levels for table in tables[level.weights][level.gain]]
    packed = {"hyper": pack_tables(every_table), "latent": pack_tables(gaussian_tables())}
    write_tensors(target / TABLES, {f"{part}.{key}": t for part, group in packed.items() for key, t in group.items()})
    bank = Bank(
        folder=target,
        name=name,
        config=config,
        levels=levels,
        files={file: hashlib.sha256((target / file).read_bytes()).hexdigest() for file in [*files, TABLES]},
        notes=notes or {},
    )
    bank._validate()
    content = {
        "format": FORMAT,
        "name": name,
        "configuration": to_json(config),
        "levels": [dataclasses.asdict(level) for level in bank.levels],
        "files": bank.files,
        "notes": bank.notes,
    }
    write_file(target / BANK_MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
    return bank


def _stored(key: str, value: Tensor, half: bool) -> Tensor:
    """Gains and the hyper-prior's density are few and keep all their bits."""
    few = ".gains" in key or "_gains" in key or key.startswith("hyper_prior")
    return value.float() if few or not half else value.half()


@torch.no_grad()
def make_hyper_tables(network: CompressionNetwork) -> list[list[FrequencyTable]]:
    """For each level the tables of the hyper-latents' channels."""
    prior = copy.deepcopy(network.hyper_prior).cpu().double()
    tables = []
    for level in range(network.config.levels):
        gain = network.priors.hyper_gains(torch.tensor([level])).detach().cpu().double().view(-1, 1, 1)

        def cumulative(points: Tensor, gain: Tensor = gain) -> Tensor:
            return torch.sigmoid(prior.logits(points / gain))[:, 0]

        tables.append(make_tables(cumulative))
    return tables


def check_bank(bank: Bank) -> list[str]:
    """Read every file of a bank and code with every level: one sentence for each fault, none if it is sound."""
    from codec.learned import LearnedCodec

    faults = []
    try:
        bank.tables()
        for file in sorted(bank.files.keys() - {TABLES}):
            if not all(bool(tensor.isfinite().all()) for tensor in bank.network(file).state_dict().values()):
                faults.append(f"{bank.folder / file}: has weights that aren't finite.")
        codec = LearnedCodec(bank)
        ramp = np.add.outer(np.arange(37), np.arange(51) * 2).astype(np.uint8)
        image = np.stack([ramp, ramp[::-1], 255 - ramp], 2)
        encode = codec.encoder(image)
        for level in range(len(bank.levels)):
            if codec.decode(encode(level)).shape != image.shape:
                faults.append(f"{bank.folder}: level {level} decodes to another size.")
    except CodecError as error:
        faults.append(str(error))
    except Exception as error:  # whatever a stranger's weights lead to
        faults.append(f"{bank.folder}: fails with {type(error).__name__} ({error}).")
    return faults


def untrained_network(configuration: str, levels: int) -> CompressionNetwork:
    """A network with random weights, the same in every call, whose gains spread over ``levels``.

    Raises:
        BankError: there is no such configuration.
    """
    try:
        config = dataclasses.replace(find_configuration(configuration), levels=levels)
    except ValueError as error:
        raise BankError(str(error)) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CompressionNetwork(config)
        network.priors.gains.log.data += torch.linspace(1, 3, levels)[:, None]
    return network


def write_checkpoint(
    path: str | os.PathLike[str], network: CompressionNetwork, notes: dict[str, Any] | None = None
) -> None:
    """Write weights with their configuration, for :func:`read_checkpoint`.

    Raises:
        ImageError: the file can't be written.
    """
    texts = {"configuration": json.dumps(to_json(network.config)), "notes": json.dumps(notes or {})}
    write_tensors(path, network.state_dict(), texts)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[CompressionNetwork, dict[str, Any]]:
    """The network and notes of a file that :func:`write_checkpoint` made.

    Raises:
        WeightsError: it can't be read, or is of something else.
    """
    tensors, texts = read_tensors(path)
    try:
        network = CompressionNetwork(from_json(json.loads(texts["configuration"])))
        network.load_state_dict(tensors)
        return network, json.loads(texts["notes"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{path}: holds no network of a known configuration.") from error


def read_network(source: str) -> tuple[CompressionNetwork, dict[str, Any]]:
    """The network and notes of a file of weights, or what the levels of a bank share (its first level's).

    Raises:
        WeightsError: the file can't be read, or is of something else.
        BankError: there is no such file and no such bank, or it is damaged.
    """
    if Path(source).is_file():
        return read_checkpoint(source)
    bank = Bank.load(bank_folder(source))
    return bank.network(bank.levels[0].weights), bank.notes
