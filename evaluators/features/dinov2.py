"""DINOv2, in whose features the FD-DINOv2 is measured."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from dpbench.core.errors import UserError
from dpbench.core.files import sha256

from .extractor import Extractor, clean_resize

DINOV2_VARIABLE = "DPBENCH_DINOV2"
DINOV2_FEATURES = 1024
DINOV2_FILE = "model.safetensors of timm/vit_large_patch14_dinov2.lvd142m"
MODEL = "vit_large_patch14_dinov2"
SIDE = 224


def dinov2_extractor(file: Path, device: torch.device) -> Extractor:
    """DINOv2 ViT-L/14 at 224 x 224: the class token behind the last norm.

    Oquab et al. 2023; as a space for distances of images, Stein et al. 2023. The network is timm's,
    the resize clean-fid's.

    Args:
        file: Its weights as timm (``DINOV2_FILE``) or their authors publish them.
        device: Where to compute.

    Raises:
        UserError: The file is missing or holds something else.
    """
    if not file.is_file():
        raise UserError(f"{DINOV2_VARIABLE} names {file}, which is no file; expected {DINOV2_FILE}")
    try:
        network = timm.create_model(
            MODEL,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(file)},
            img_size=SIDE,
            num_classes=0,
        )
    except Exception as error:  # whatever the bytes of a bad file provoke
        raise UserError(
            f"{DINOV2_VARIABLE} names {file}, which holds no weights of {MODEL} "
            f"({type(error).__name__}); expected {DINOV2_FILE}"
        ) from error
    network = network.eval().to(device)
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )

    def features(pixels: Tensor) -> Tensor:
        result: Tensor = network((clean_resize(pixels, SIDE) / 255 - mean) / std)
        return result

    return Extractor(
        f"dinov2-vitl14-clean{SIDE}-{sha256(file)[:8]}", DINOV2_FEATURES, features, batch=50
    )
