"""A real browser, and a folder served to it."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu")
#: No host but this one has an address.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    """Serves files, and takes what a page posts."""

    def __init__(self, *args: Any, posted: Queue[Any], **kwargs: Any) -> None:
        self.posted = posted
        super().__init__(*args, **kwargs)

    def do_POST(self) -> None:
        self.posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def browse(*words: str) -> str:
    """Open a page and return what the browser prints."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *_FLAGS, "--virtual-time-budget=5000", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def look(folder: Path, page: str, profile: Path, timeout: float) -> Any:
    """Serve a folder, open a page of it without a network, and return the JSON that the page posts."""
    assert CHROMIUM is not None
    posted: Queue[Any] = Queue()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder, posted=posted)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        flags = [*_FLAGS, OFFLINE, f"--user-data-dir={profile}"]
        address = f"http://127.0.0.1:{server.server_port}/{page}"
        browser = subprocess.Popen([CHROMIUM, *flags, address], stderr=subprocess.DEVNULL)
        try:
            return posted.get(timeout=timeout)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
