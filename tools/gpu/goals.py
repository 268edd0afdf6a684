"""What is promised of a GPU, fixed before any of it was measured here."""

# Share: sum of the markers' means against the profiler's and the events' times of the same work.
TRUTH = 0.005
# Share of a decode step that markers around two layers may cost; a marker over an empty kernel.
STEP_COST, MARKER_OVER_EMPTY = 0.0015, 1.3
# Points of speed-up that a kernel may lie off its bytes, at these batches.
OFF_BYTES, BYTES_BATCHES = 0.02, (16, 32, 64)
# Relative error of the bf16 kernel against float32, on random weights.
KERNEL_ERROR = 0.01
# The gain that the demo's policy asks for; blocks that are measured, of two windows each, and the
# seconds of a window, in which every arm is loaded once (four arms take 5.2 s on an H200).
MARGIN, BLOCKS, WINDOW_SECONDS = 0.02, 12, 8.0
# A wrong model must fail, a sound one pass, within so many seconds of probing.
GATE_SECONDS = 300
