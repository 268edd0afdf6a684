"""Download one revision of a model, check it, mark it: fetch_model NAME REVISION FOLDER CHECKSUMS.

CHECKSUMS is JSON: SHA-256 by file name. A marked folder is left as it is, so the Job may run again.
"""

import hashlib
import json
import sys
from pathlib import Path

# The original and Metal formats are the same weights again.
LEFT_OUT = ("original/", "metal/")


def checked(folder, hub, checksums):
    """What does not match, file by file. `hub`: SHA-256 by file name, None where unknown."""
    for name in sorted({*hub, *checksums}):
        path = folder / name
        if not path.is_file():
            yield f"{name}: missing"
            continue
        if name not in checksums:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == checksums[name]:
            continue
        said = f"{name}: SHA-256 is {found}, not {checksums[name]}"
        if found == hub.get(name):
            yield f"{said}; it is the hub's own: mend model.job.checksums"
        else:
            # Else the hub's client would take it for downloaded, in every try after this.
            path.unlink()
            yield f"{said}; removed, the next try downloads it again"


name, revision, folder, checksums = sys.argv[1:]
folder, checksums = Path(folder), json.loads(checksums)
mark, wanted = folder / ".complete", json.dumps(checksums)
verified = f"{len(checksums)} files checked"
if not checksums:
    verified = "nothing verified, because model.job.checksums is empty"
if mark.exists() and mark.read_text("utf-8") == wanted:
    print(f"{folder}: complete already, {verified}")
    sys.exit(0)
mark.unlink(missing_ok=True)

from huggingface_hub import model_info, snapshot_download  # noqa: E402

try:
    # Asked for by itself: where the hub does not answer, snapshot_download is content with what an
    # interrupted download left in the folder.
    files = model_info(name, revision=revision, files_metadata=True).siblings
    snapshot_download(
        name, revision=revision, local_dir=folder, ignore_patterns=[f"{each}*" for each in LEFT_OUT]
    )
except Exception as error:  # noqa: BLE001 - the hub's client has errors of many kinds
    said = f"{type(error).__name__}: {error}"
    sys.exit(f"{name}, revision {revision}: {' '.join(said.split())}")
hub = {each.rfilename: each.lfs and each.lfs.sha256 for each in files}
hub = {file: known for file, known in hub.items() if not file.startswith(LEFT_OUT)}
wrong = list(checked(folder, hub, checksums))
if wrong:
    for line in wrong:
        print(f"{folder}: {line}", file=sys.stderr)
    sys.exit(1)
mark.write_text(wanted, "utf-8")
print(f"{folder}: complete, {verified}")
