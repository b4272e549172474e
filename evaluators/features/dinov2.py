"""DINOv2, the feature extractor of FD-DINOv2."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dpbench.core.errors import Unavailable, passing
from dpbench.core.files import sha256

from .extractor import Extractor, clean_resize

DINOV2_VARIABLE = "DPBENCH_DINOV2"
DINOV2_FEATURES = 1024
DINOV2_FILE = "model.safetensors of timm/vit_large_patch14_dinov2.lvd142m"
MODEL = "vit_large_patch14_dinov2"
SIDE = 224


def dinov2_extractor(file: Path, device: torch.device) -> Extractor:
    """Return DINOv2 ViT-L/14 at 224 x 224, whose features are the class token after the last norm.

    Oquab et al. 2023; Stein et al. 2023 propose its features for distances of images. The network
    is timm's, the resize clean-fid's.

    Args:
        file: Weights as timm (``DINOV2_FILE``) or the authors publish them.
        device: Device to compute on.

    Raises:
        Unavailable: The file does not hold these weights.
    """
    import timm  # here because the import takes seconds
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    try:
        network = timm.create_model(
            MODEL,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(file)},
            img_size=SIDE,
            num_classes=0,
        )
    except Exception as error:  # a bad file may raise anything
        if passing(error) and file.is_file():
            raise
        raise Unavailable(
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
