"""What the site's build (mkdocs.yml) adds to Markdown that reads well in the repository as it is.

CONTRIBUTING.md is a page of the site. Links to any other file outside docs/ lead to the repository's address.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from urllib.parse import urljoin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
CONTRIBUTING = DOCS.parent / "CONTRIBUTING.md"
AS_PAGE = DOCS / "contributing.md"
_LINK = re.compile(r"(?<=\]\()[\w./-]+(?=[)#])")
_log = logging.getLogger("mkdocs.hooks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add CONTRIBUTING.md."""
    files.append(File.generated(config, AS_PAGE.name, content=CONTRIBUTING.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page to where their files are, seen from the site."""
    as_page = DOCS / page.file.src_uri
    source = CONTRIBUTING if as_page == AS_PAGE else as_page
    repository = f"{config.repo_url}/{config.edit_uri}"

    def rewritten(link: re.Match[str]) -> str:
        target = (source.parent / link[0]).resolve()
        if not target.exists():
            _log.warning("%s links to %s, which does not exist", source.name, link[0])
        if target == CONTRIBUTING:
            target = AS_PAGE
        if target.is_relative_to(DOCS):
            return os.path.relpath(target, as_page.parent)
        return urljoin(repository, os.path.relpath(target, DOCS))

    return _LINK.sub(rewritten, markdown)
