"""What the documents promise."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import torch

from dpbench.api.method import RunContext
from dpbench.api.profiles import PROFILES, SMOKE
from dpbench.core.progress import Silent
from dpbench.core.registry import entries
from dpbench.core.streams import Streams, reproducible_key
from dpbench.data.catalog import CATALOG
from dpbench.data.load import load as load_dataset
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.ledger import PrivacyLedger
from dpbench.privacy.mechanisms import PrivateImages
from dpbench.runs.request import private_set_info

ROOT = Path(__file__).resolve().parent.parent


def test_the_method_in_the_contributing_guide_works(tmp_path, monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = types.ModuleType("my_method")
    monkeypatch.setitem(sys.modules, "my_method", module)
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    info = private_set_info(CATALOG["digits"])
    train = load_dataset("digits", None, Silent()).splits.train
    ledger = PrivacyLedger(PrivacyBudget(100.0))
    streams = Streams(0)
    method = module.METHOD()
    run = RunContext(SMOKE, torch.device("cpu"), streams, Silent(), tmp_path)
    private = PrivateImages(train, info, ledger, Streams(0, reproducible_key(0)))
    sampler = method.fit(private, run)
    images = sampler.sample(torch.zeros(3, dtype=torch.int64), torch.Generator())
    assert ledger.events == method.plan(info, ledger.budget).events
    assert images.shape == (3, 1, 16, 16)
    assert (images[0].float() - train.pixels.float().mean(0)).abs().mean() < 5


def test_the_readme_names_every_method_and_profile():
    text = (ROOT / "README.md").read_text()
    for name in (*entries("method"), *PROFILES):
        assert f"`{name}`" in text, name


def test_the_readme_quotes_its_own_commands_once_each():
    text = (ROOT / "README.md").read_text()
    for command in (
        "pip install . && dpbench run --method dpsyngen --dataset fashionmnist --eps 1\n",
        "pip install -e '.[dev]' && pytest -n auto\n",
    ):
        assert text.count(command) == 1
    assert "pytest" in (ROOT / ".ci" / "run").read_text()
