"""The page in the browser: what a journal has of its runs, while they go on and afterwards.

    browser ──GET──▶ connection ──▶ guard ──▶ app ──▶ pages ──▶ Journal.reader()
       ▲ ▲                                     └──POST cancel──▶ Journal.cancel()
       │ └── HTML that the server has rendered; page.js puts in what is new of it
       └──events── live: one poller for all pages that are open

It starts no run, and no recorded value is turned back from bytes. `connection` and `guard` are what strangers meet
first, and `lock` asks for the key.
"""

from procession.web.app import application
from procession.web.server import serve

__all__ = ["application", "serve"]
