"""Run in vLLM's environment: the real `rocm_aiter_fused_experts`, and the pads that come out.

    PYTHONPATH=<unpacked release>:<folder of a recording aiter> python cases.py [FLAG]

`--plugin` registers the plugin, `--vllm-loads` leaves that to vLLM's own loader. Prints one JSON
line: a case's name to the pads that AITER received, or the refusal.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

HIDDEN, PADDED = 2880, 3072
# Name: experts' tensor parallel size, live and padded neurons of a rank, its experts.
CASES = {
    "tp1": (1, 2880, 3072, 128),
    "tp2": (2, 1440, 1536, 128),
    "tp4": (4, 720, 768, 128),
    "tp8": (8, 360, 512, 128),
    "ep8": (1, 2880, 3072, 16),
}


def moe_config(tp: int, live: int, padded: int, experts: int) -> SimpleNamespace:
    """The fields of vLLM's FusedMoEConfig that the function reads, in every release."""
    return SimpleNamespace(
        tp_size=tp,
        hidden_dim=PADDED,
        hidden_dim_unpadded=HIDDEN,
        intermediate_size_per_partition=padded,
        intermediate_size_per_partition_unpadded=live,
        intermediate_pad=None,
        num_local_experts=experts,
        num_experts=128,
        experts_per_token=4,
        swiglu_limit=7.0,
        activation_situ_beta=None,
        activation_situ_linear_beta=None,
        use_mxfp4_w4a4_dsv4=False,
    )


def quant_config() -> SimpleNamespace:
    """w4a16 with biases, as GPT-OSS on MI355X."""
    import torch

    names = ("w1_scale", "w2_scale", "a1_scale", "a2_scale", "block_shape")
    flags = ("per_act_token_quant", "per_out_ch_quant", "use_fp8_w8a8", "use_mxfp4_w4a4")
    return SimpleNamespace(
        **dict.fromkeys(names),
        **dict.fromkeys(flags, False),
        use_mxfp4_w4a16=True,
        w1_bias=torch.zeros(1),
        w2_bias=torch.zeros(1),
    )


def call(module: Any, *case: int) -> None:
    """One call of vLLM's function; AITER's stand-in records what it gets."""
    import torch
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation

    module.rocm_aiter_fused_experts(
        hidden_states=torch.zeros(1, PADDED),
        w1=torch.zeros(1),
        w2=torch.zeros(1),
        topk_weights=torch.zeros(1, 4),
        topk_ids=torch.zeros(1, 4, dtype=torch.int64),
        moe_config=moe_config(*case),
        activation=MoEActivation.SWIGLUOAI,
        quant_config=quant_config(),
    )


def real_module() -> Any:
    """VLLM's own module, with its custom op registered for the CPU."""
    import vllm._aiter_ops as ops
    from vllm.model_executor.layers.fused_moe.experts import rocm_aiter_moe
    from vllm.utils.torch_utils import direct_register_custom_op

    direct_register_custom_op(
        op_name="rocm_aiter_fused_moe",
        op_func=ops._rocm_aiter_fused_moe_impl,
        mutates_args=[],
        fake_impl=ops._rocm_aiter_fused_moe_fake,
        dispatch_key="CPU",
    )
    return rocm_aiter_moe


def main() -> None:
    """Run every case."""
    if "--plugin" in sys.argv:
        from moe_serve.vllm_plugin import register

        register()
        register()  # vLLM may call it again
    if "--vllm-loads" in sys.argv:
        from vllm.plugins import load_general_plugins

        load_general_plugins()
    module = real_module()
    import aiter.fused_moe as recorder

    received: dict[str, Any] = {}
    for name, case in CASES.items():
        try:
            call(module, *case)
        except Exception as error:  # noqa: BLE001  # a refusal is a result
            received[name] = f"{type(error).__name__}: {error}"
        else:
            received[name] = recorder.received.pop()
    sys.stdout.write(json.dumps(received) + "\n")


if __name__ == "__main__":
    main()
