from __future__ import annotations

import json
import subprocess
import sys

from dpbench.data.catalog import CATALOG


def test_the_catalog_names_every_class() -> None:
    for name, info in CATALOG.items():
        assert info.name == name
        assert len(info.class_names) == info.classes


def test_official_counts_are_those_of_the_papers() -> None:
    counts = {name: (i.train, i.validation, i.test) for name, i in CATALOG.items()}
    assert sum(counts["celeba"]) == 202_599
    assert sum(counts["camelyon17"]) == 455_954 - 33_560  # what WILDS calls id_val
    assert counts["imagenet32"] == (1_281_167, 0, 50_000)
    assert counts["cifar10"] == (50_000, 0, 10_000)


def test_listing_and_describing_data_sets_opens_no_file_and_imports_no_torch() -> None:
    code = (
        "import sys, json, pathlib\n"
        "pathlib.Path.open = pathlib.Path.read_bytes = None\n"
        "from dpbench.data.catalog import CATALOG\n"
        "print(json.dumps({n: [*i.shape, i.classes] for n, i in CATALOG.items()}))\n"
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["imagenet32"] == [3, 32, 32, 1000]
