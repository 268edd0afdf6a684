"""A mirror of the hub with one model: hub_mirror NAME FOLDER PORT. Python's library alone.

It answers what huggingface_hub asks for a download: the repository's files, and each file whole or
from an offset. Every revision is the same.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
CHUNK = 1 << 20


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Mirror(ThreadingHTTPServer):
    """A model's files by name, with their digests."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        super().__init__(("0.0.0.0", port), _Handler)
        self.name = name
        self.files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
        self.digests = {name: digest(path) for name, path in self.files.items()}

    def info(self) -> dict[str, object]:
        """The model as the hub's API describes it."""
        siblings = [
            {
                "rfilename": name, "size": path.stat().st_size,
                "lfs": {
                    "sha256": self.digests[name], "size": path.stat().st_size, "pointerSize": 134,
                },
            }
            for name, path in self.files.items()
        ]  # fmt: skip
        return {"_id": "0", "id": self.name, "modelId": self.name, "sha": COMMIT,
                "private": False, "siblings": siblings, "tags": []}  # fmt: skip

    def tree(self) -> list[dict[str, object]]:
        """The files as the hub's API lists a folder."""
        return [
            {
                "type": "file", "path": name, "size": path.stat().st_size, "oid": "0" * 40,
                "lfs": {"oid": self.digests[name], "size": path.stat().st_size, "pointerSize": 134},
            }
            for name, path in self.files.items()
        ]  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Mirror

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        api, files = f"/api/models/{self.server.name}", f"/{self.server.name}/resolve/"
        if path.startswith(f"{api}/tree/"):
            self._json(self.server.tree(), body=body)
        elif path == api or path.startswith(f"{api}/revision/"):
            self._json(self.server.info(), body=body)
        elif path.startswith(files) and (name := path.rpartition("/")[2]) in self.server.files:
            self._file(name, body=body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _json(self, value: object, *, body: bool) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if body:
            self.wfile.write(text)

    def _file(self, name: str, *, body: bool) -> None:
        path = self.server.files[name]
        size = path.stat().st_size
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.server.digests[name]}"')
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if not body:
            return
        with path.open("rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK):
                self.wfile.write(chunk)

    def log_message(self, format: str, *words: object) -> None:
        sys.stderr.write(f"{format % words}\n")


if __name__ == "__main__":
    Mirror(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])).serve_forever()
