"""Wait until the Job has left its mark beside the weights: await_model FOLDER SECONDS."""

import sys
import time
from pathlib import Path

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
mark = folder / ".complete"
until = time.monotonic() + seconds
while not mark.exists():
    if time.monotonic() > until:
        sys.exit(f"{mark}: not there after {seconds:.0f} s; look at the model's Job")
    print(f"waiting for {mark}", flush=True)
    time.sleep(10)
print(f"{folder}: complete")
