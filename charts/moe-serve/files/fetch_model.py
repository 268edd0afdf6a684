"""Download one revision of a model, check it, mark it: fetch_model NAME REVISION FOLDER CHECKSUMS.

CHECKSUMS is JSON: SHA-256 by file name. A marked folder is left as it is, so the Job may run again.
"""

import hashlib
import json
import sys
from pathlib import Path


def checked(folder, checksums):
    """What does not match, file by file."""
    for name, wanted in checksums.items():
        path = folder / name
        if not path.is_file():
            yield f"{name}: missing"
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            yield f"{name}: SHA-256 is {found}, not {wanted}"


name, revision, folder, checksums = sys.argv[1:]
folder, checksums = Path(folder), json.loads(checksums)
mark = folder / ".complete"
if mark.exists() and json.loads(mark.read_text("utf-8")) == checksums:
    print(f"{folder}: complete already")
    sys.exit(0)
mark.unlink(missing_ok=True)

from huggingface_hub import snapshot_download  # noqa: E402

# The original and Metal formats are the same weights again.
snapshot_download(
    name, revision=revision, local_dir=folder, ignore_patterns=["original/*", "metal/*"]
)
wrong = list(checked(folder, checksums))
if wrong:
    for line in wrong:
        print(f"{folder}: {line}", file=sys.stderr)
    sys.exit(1)
mark.write_text(json.dumps(checksums), "utf-8")
print(f"{folder}: complete, {len(checksums)} files checked")
