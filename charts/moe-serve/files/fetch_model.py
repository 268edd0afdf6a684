"""Download one revision of a model, check it, mark it: fetch_model NAME REVISION FOLDER CHECKSUMS.

CHECKSUMS is JSON: SHA-256 by file name. A marked folder is left as it is, so the Job may run again.
"""

import hashlib
import json
import sys
from pathlib import Path

# The original and Metal formats are the same weights again.
LEFT_OUT = ("original/", "metal/")
MOST_IN_GIT = 16 << 20  # the hub takes no larger files without LFS


def checked(folder, hub, checksums):
    """What does not match, file by file. `hub`: what the hub tells of each file, by its name."""
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
        same = of_the_hub(path, found, hub.get(name))
        if same is None:
            yield f"{said}; the hub does not tell its own: mend model.job.checksums or the file"
        elif same:
            yield f"{said}; it is the hub's own: mend model.job.checksums"
        else:
            # Else the hub's client would take it for downloaded, in every try after this.
            path.unlink()
            yield f"{said}; removed, the next try downloads it again"


def of_the_hub(path, sha256, told):
    """Whether a file is what the hub has; None where the hub does not say."""
    if told and told.lfs:
        return sha256 == told.lfs.sha256
    if told and told.blob_id and path.stat().st_size < MOST_IN_GIT:
        # Small files lie in git itself, under the name that it makes of their content.
        blob = path.read_bytes()
        blob = b"blob %d\0" % len(blob) + blob
        return hashlib.sha1(blob, usedforsecurity=False).hexdigest() == told.blob_id
    return None


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
hub = {each.rfilename: each for each in files if not each.rfilename.startswith(LEFT_OUT)}
wrong = list(checked(folder, hub, checksums))
if wrong:
    for line in wrong:
        print(f"{folder}: {line}", file=sys.stderr)
    sys.exit(1)
mark.write_text(wanted, "utf-8")
print(f"{folder}: complete, {verified}")
