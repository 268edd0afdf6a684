"""The committed weights and the sizes of their models."""

from pathlib import Path

from moe_serve_emulation.checkpoint import CheckpointSpec
from moe_serve_emulation.learned.tokenizer import SIZE

# By MoE width. Every token takes both experts, as in the seeded checkpoint.
SPECS = {
    360: CheckpointSpec(
        layers=2, hidden=128, intermediate=360, heads=4, kv_heads=2, head_dim=32, vocab=SIZE
    ),
    2880: CheckpointSpec(
        layers=2, hidden=64, intermediate=2880, heads=4, kv_heads=2, head_dim=32, vocab=SIZE
    ),
}
FOLDER = Path(__file__).parent / "weights"


def path(width: int) -> Path:
    """The weights' file of the model with this MoE width."""
    return FOLDER / f"{width}.safetensors"
