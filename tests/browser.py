"""Pages in a headless Chromium, as a person would see them."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]
SIZE = (1500, 1300)
LOADS_MS = 20_000  # of the page's own clock, which runs ahead while nothing is waited for
DEADLINE_S = 240.0


def chromium() -> str:
    """The program; skips where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or pytest.skip("no Chromium on this machine")


def browse(url: str, *output: str) -> str:
    """Loads a page and returns what the browser prints of it."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium(), "--headless", "--no-sandbox", *QUIET, f"--user-data-dir={profile}"]
        command += [f"--window-size={SIZE[0]},{SIZE[1]}", f"--virtual-time-budget={LOADS_MS}", *output, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.stdout


def text_of(url: str) -> str:
    """The words of a page once its scripts have run."""
    dom = re.sub(r"<(script|style)\b.*?</\1>", " ", browse(url, "--dump-dom"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", dom)).split())


def require_words(url: str, *words: str) -> None:
    """Fails unless all of the words come to stand on the page; a busy server may need a second look."""
    end = time.monotonic() + DEADLINE_S
    while lacking := [word for word in words if word not in (text := text_of(url))]:
        assert time.monotonic() < end, f"{url} lacks {lacking}: {text}"


def screenshot(url: str, path: Path) -> np.ndarray:
    """(H, W, 3) uint8 of the page, which is also written to `path`."""
    browse(url, f"--screenshot={path}")
    return np.asarray(Image.open(path).convert("RGB"))
