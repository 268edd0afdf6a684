# The emulation of AITER over the base for the CPU: what the node's servers run on where there is no GPU.
# Context: a folder with the emulation's wheel in dist.
ARG BASE_IMAGE=localhost/moe-serve-base-cpu:dev
FROM ${BASE_IMAGE}
RUN --mount=type=bind,source=.,target=/mnt/context \
    /opt/venv/bin/python -m pip install --no-index --no-deps --no-cache-dir --quiet --no-compile \
      --disable-pip-version-check /mnt/context/dist/moe_serve_emulation-*.whl \
 && /opt/venv/bin/python -B -m compileall -qq -f --invalidation-mode unchecked-hash \
      /opt/venv/lib/python3*/site-packages/moe_serve_emulation
