"""Which GPUs a pod is meant for: the card, and how it may be partitioned."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_GIB = 2**30
# Parts that a card's compute modes make of it.
_PARTS: Mapping[str, int] = {"SPX": 1, "DPX": 2, "TPX": 3, "QPX": 4, "CPX": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A card: instruction set, memory in GB as sold, PCI ids of it and its virtual function."""

    name: str
    gfx: str
    memory_gb: int
    device_ids: tuple[str, str]

    @property
    def vram_bytes(self) -> int:
        """Bytes that the driver shows at least: it keeps a little for itself."""
        # An MI355X of 288 GB must show 270 GiB.
        return self.memory_gb * 270 * _GIB // 288


# Device ids: ROCm/gpu-operator, internal/utils.go.
PRODUCTS: Mapping[str, Product] = {
    product.name: product
    for product in (
        Product(name="MI355X", gfx="gfx950", memory_gb=288, device_ids=("75a3", "75b3")),
        Product(name="MI350X", gfx="gfx950", memory_gb=288, device_ids=("75a0", "75b0")),
        Product(name="MI325X", gfx="gfx942", memory_gb=256, device_ids=("74a5", "74b9")),
        Product(name="MI300X", gfx="gfx942", memory_gb=192, device_ids=("74a1", "74b5")),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedGpus:
    """The card, and the accepted modes as (compute, memory), such as ("SPX", "NPS1")."""

    product: Product = PRODUCTS["MI355X"]
    modes: tuple[tuple[str, str], ...] = (("SPX", "NPS1"),)

    def vram_bytes(self, compute: str | None) -> int:
        """Bytes that a GPU in this compute mode shows at least."""
        return self.product.vram_bytes // _PARTS.get(compute or "", 1)


def mode(text: str) -> tuple[str, str]:
    """Compute and memory mode of a node label's value, such as `spx_nps1`.

    Raises:
        ValueError: it has another form.
    """
    found = re.fullmatch(r"(spx|dpx|tpx|qpx|cpx)_(nps[1248])", text.lower())
    if not found:
        raise ValueError(f"{text!r} is no partitioning; write COMPUTE_MEMORY, such as spx_nps1")
    return found[1].upper(), found[2].upper()
