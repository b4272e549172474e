"""The folder of a run: who may write there, and what an earlier run left."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import locked
    advice = "choose another --out, or discard it with --overwrite"
    return read_earlier(file, read_record, spec, f"{folder} holds another run", advice)
