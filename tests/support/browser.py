"""A real browser, and a folder served to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu")
#: No host but this one has an address.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


#: Shows a page at the widths of a desk and of a phone, and writes into its own title what both tell.
_FRAMES = """<title></title><script>const seen=[];
onmessage=e=>{{seen.push(e.data);document.title=JSON.stringify(seen)}}</script>
<iframe src="{0}" width="1280" height="900"></iframe><iframe src="{0}" width="390" height="900"></iframe>"""


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


def probed(page: str, probe: str, folder: Path) -> list[dict[str, Any]]:
    """Return what a probe tells of a page on a desk, and on a phone."""
    (folder / "probed.html").write_text(page.replace("</main>", f"</main>{probe}"))
    (folder / "frames.html").write_text(_FRAMES.format("probed.html"))
    dom = browse("--window-size=1700,900", "--dump-dom", f"file://{folder / 'frames.html'}")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title is not None
    desk, phone = sorted(json.loads(unescape(title[1])), key=lambda seen: -seen["width"])
    assert (desk["width"], phone["width"]) == (1280, 390)
    return [desk, phone]
