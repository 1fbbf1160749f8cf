"""Many runs as one HTML page that needs nothing else: no server, no network, no Python."""

from requant.webpage.building import build, write_page

__all__ = ["build", "write_page"]
