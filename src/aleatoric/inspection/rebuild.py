"""The network of a training, from its bundle's configs, what run.json remembers and the checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from torch import nn

from ..errors import InputError, input_error_in
from ..handlers import ModelSettings, SettingsCheckpointLoader
from ..runs import Run

__all__ = ["load_weights", "rebuild_network"]

_PACKAGE = __package__.rpartition(".")[0]
_VENDORED = re.compile(r"\bscripts\.aleatoric\b")  # how a packed bundle's configs call this package
_NOT_OF_THE_NETWORK = ("intensity", "raters", "variant")


def rebuild_network(run: Run, overlays: Sequence[str | Path] = ()) -> nn.Module:
    """The network as configs/inference.json makes it with the run's variant and settings; on the CPU, no weights yet.

    Args:
        run: which training.
        overlays: further config files, as ``--config_file`` had them in training: paths, or names in the bundle's
            configs. What the run remembers (filters, channels ...) wins over them.

    Raises:
        InputError: a file is missing or no JSON, or they make no network.
    """
    configs = run.bundle_root / "configs"
    files = [configs / "inference.json"]
    if run.settings.get("variant"):
        files.append(configs / f"{run.settings['variant']}.json")
    files += [_found(overlay, configs) for overlay in overlays]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"there is no {file}, the config of a bundle expected: put the bundle back, or correct the name."
            )
    try:
        content = json.dumps(ConfigParser.load_config_files([str(file) for file in files]))
        config = json.loads(_VENDORED.sub(_PACKAGE, content))
        for name, value in run.settings.items():
            if name in config and name not in _NOT_OF_THE_NETWORK:
                config[name] = value
        config["bundle_root"] = str(run.bundle_root)
        network = ConfigParser(config).get_parsed_content("network_def")
    except (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        cause = input_error_in(error) or error
        reason = str(cause).partition("\n")[0].rstrip(".")
        raise InputError(
            f"no network can be made of {', '.join(str(file) for file in files)} ({reason}): give the overlays of the "
            "training with --config-file."
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"network_def in {files[0]} makes a {type(network).__name__}, expected a network.")
    return network.eval()


def load_weights(network: nn.Module, run: Run, checkpoint: Path, intensity: Mapping[str, Any]) -> None:
    """Load the checkpoint, every weight of it, after its settings were compared with the run's.

    Args:
        network: of :func:`rebuild_network`.
        run: which training.
        checkpoint: the file, or one of another epoch of the training.
        intensity: :func:`~aleatoric.data.intensity_rule` of the data that the network is to see.

    Raises:
        InputError: no such file, another model's, or one that was trained on other intensities.
    """
    settings = ModelSettings(**{**run.settings, "intensity": dict(intensity)})
    loader = SettingsCheckpointLoader(
        load_path=str(checkpoint), load_dict={"settings": settings, "model": network}, map_location="cpu"
    )
    engine = Engine(lambda engine, batch: None)
    loader.attach(engine)
    with torch.no_grad():
        loader(engine)


def _found(overlay: str | Path, configs: Path) -> Path:
    path = Path(overlay)
    inside = configs / (path.name if path.suffix else f"{path.name}.json")
    return inside if not path.is_file() and inside.is_file() else path
