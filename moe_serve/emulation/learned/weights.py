"""The committed weights."""

from moe_serve.emulation.checkpoint import CheckpointSpec
from moe_serve.emulation.learned.tasks import WORDS

WIDTHS = {
    360: CheckpointSpec(
        experts=4, hidden=128, intermediate=360, heads=4, head_dim=32, vocab=len(WORDS)
    ),
    2880: CheckpointSpec(hidden=64, intermediate=2880, heads=4, head_dim=32, vocab=len(WORDS)),
}
