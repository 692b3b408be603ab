"""The page: ``python app.py [--share] [--mcp]``; address and port by GRADIO_SERVER_NAME and GRADIO_SERVER_PORT."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import spaces  # noqa: F401, I001  (before torch: on a ZeroGPU Space it takes CUDA's place in the main process)

import argparse
import logging
import sys
from threading import Thread

from omnifusion.progress import InputError
from omnifusion.ui import make_service, serve
from omnifusion.ui.service import warm_up


def main() -> int:
    """Serve the page until interrupted."""
    p = argparse.ArgumentParser(description="Serve the OmniFusion page.")
    p.add_argument("--share", action="store_true", help="also give a public link for 72 hours")
    p.add_argument("--mcp", action="store_true", help="also serve the endpoints as MCP tools")
    args = p.parse_args()
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("omnifusion").setLevel(logging.INFO)
    try:
        service = make_service()
    except InputError as error:
        print(f"omnifusion: {error}", file=sys.stderr)
        return 2
    service.go_on()
    service.store.keep_expiring()
    Thread(target=warm_up, daemon=True).start()
    serve(service, args.share, args.mcp)
    os._exit(0)  # ends a run at work, too, which resumes when the page is served again


if __name__ == "__main__":
    sys.exit(main())
