"""Inception-v3, the feature extractor of FID, with two ways to resize."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from dpbench.core.errors import Unavailable, passing
from dpbench.core.files import sha256

from .extractor import Extractor, clean_resize

INCEPTION_VARIABLE = "DPBENCH_INCEPTION"
INCEPTION_FEATURES = 2048
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
SIDE = 299


def inception_extractor(file: Path, device: torch.device, clean: bool) -> Extractor:
    """Return Inception-v3 in the TensorFlow port of 2015-12-05, as in the original FID.

    The network is torch-fidelity's. Grey images are repeated to three channels.

    Args:
        file: Weights as torch-fidelity publishes them (``INCEPTION_FILE``).
        device: Device to compute on.
        clean: Whether to resize as clean-fid does, rather than bilinearly as TensorFlow 1 and the
            original do.

    Raises:
        Unavailable: The file does not hold these weights.
    """
    try:
        # torch-fidelity would unpickle anything; this first refuses all but tensors
        torch.load(file, map_location="cpu", weights_only=True)
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            [str(INCEPTION_FEATURES)],
            feature_extractor_weights_path=str(file),
        ).to(device)
    except Exception as error:  # a bad file may raise anything
        if passing(error):
            raise
        raise Unavailable(
            f"{INCEPTION_VARIABLE} names {file}, which holds no Inception-v3 weights "
            f"({type(error).__name__}); expected {INCEPTION_FILE} as torch-fidelity publishes it"
        ) from error
    # the part of torch-fidelity's forward between its resize and the classifier
    layers = [child for name, child in network.named_children() if name != "fc"]
    body = nn.Sequential(*layers, nn.Flatten())

    def original(pixels: Tensor) -> Tensor:
        result: Tensor = network(pixels.expand(-1, 3, -1, -1))[0]
        return result

    def cleaned(pixels: Tensor) -> Tensor:
        result: Tensor = body((clean_resize(pixels, SIDE) - 128) / 128)
        return result

    return Extractor(
        f"inception-v3-tf2015-{'clean' if clean else 'bilinear'}{SIDE}-{sha256(file)[:8]}",
        INCEPTION_FEATURES,
        cleaned if clean else original,
        batch=50,
        head=network.fc.weight.T.cpu().numpy(),
    )
