"""Fields of real MoE models' `config.json`, re-created: sizes, activation and quantisation.

Each model: its fields, then what has to come of them. `Sizes` are judged; a `str` is a word of the
sentence that refuses the model. bf16 and FP8 models are judged with `--quant w4a16` (as somebody
who quantises them would), so `Sizes` of those are what such a run judges.
"""

from typing import Any, NamedTuple

Config = dict[str, Any]


class Sizes(NamedTuple):
    """The experts that are judged: hidden, neurons, experts, experts per token, activation."""

    hidden: int
    width: int
    experts: int
    top_k: int
    activation: str = "silu"


def plain(
    kind: str,
    hidden: int,
    width: int,
    experts: int,
    top_k: int,
    *,
    experts_key: str = "num_experts",
    width_key: str = "moe_intermediate_size",
    top_k_key: str = "num_experts_per_tok",
    act: str = "silu",
    **more: Any,
) -> Config:
    """A configuration whose language model is at the top."""
    return {
        "model_type": kind, "hidden_size": hidden, width_key: width, experts_key: experts,
        top_k_key: top_k, "hidden_act": act, **more,
    }  # fmt: skip


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
FP4 = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
QUARK_W4A4 = {
    "quant_method": "quark", "global_quant_config": {"weight": FP4, "input_tensors": FP4},
}  # fmt: skip
QUARK_W4A8 = {
    "quant_method": "quark",
    "global_quant_config": {"weight": FP4, "input_tensors": {"dtype": "fp8_e4m3"}},
}
QUARK_W4A16 = {
    "quant_method": "quark", "global_quant_config": {"weight": FP4, "input_tensors": None},
}  # fmt: skip
QUARK_MIXED = {
    "quant_method": "quark",
    "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}, "input_tensors": None},
    "layer_quant_config": {"*mlp.experts*": {"weight": FP4, "input_tensors": FP4}},
}
NVFP4 = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
MXFP4_GROUP = {"num_bits": 4, "type": "float", "group_size": 32}
COMPRESSED_MXFP4 = {
    "quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
    "config_groups": {"group_0": {"weights": MXFP4_GROUP, "input_activations": None}},
}  # fmt: skip
COMPRESSED_INT4 = {
    "quant_method": "compressed-tensors", "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
}  # fmt: skip
ROUTED = {"experts_key": "n_routed_experts"}
LOCAL = {"experts_key": "num_local_experts", "width_key": "intermediate_size"}
FFN = {"width_key": "intermediate_size"}

# Models as they are published: judged by what they say of themselves, or refused by name.
PUBLISHED: dict[str, tuple[Config, Sizes | str]] = {
    "openai/gpt-oss-120b": (
        plain("gpt_oss", 2880, 2880, 128, 4, **LOCAL,
              quantization_config={"quant_method": "mxfp4"}),
        Sizes(2880, 2880, 128, 4, "swigluoai"),
    ),
    "openai/gpt-oss-20b": (
        plain("gpt_oss", 2880, 2880, 32, 4, **LOCAL,
              quantization_config={"quant_method": "mxfp4"}),
        Sizes(2880, 2880, 32, 4, "swigluoai"),
    ),
    "amd/gpt-oss-120b-w-mxfp4-a-fp8": (
        plain("gpt_oss", 2880, 2880, 128, 4, **LOCAL, quantization_config=QUARK_W4A8),
        Sizes(2880, 2880, 128, 4, "swigluoai"),
    ),
    "amd/DeepSeek-R1-0528-MXFP4": (
        plain("deepseek_v3", 7168, 2048, 256, 8, **ROUTED, intermediate_size=18432,
              n_shared_experts=1, first_k_dense_replace=3, quantization_config=QUARK_W4A4),
        Sizes(7168, 2048, 256, 8),
    ),
    "amd/Kimi-K2.5-MXFP4": (
        {"model_type": "kimi_k25", "quantization_config": QUARK_MIXED,
         "text_config": plain("kimi_k2", 7168, 2048, 384, 8, **ROUTED, intermediate_size=18432)},
        Sizes(7168, 2048, 384, 8),
    ),
    "amd/MiniMax-M2.1-MXFP4": (
        plain("minimax_m2", 3072, 1536, 256, 8, **LOCAL, quantization_config=QUARK_W4A4),
        Sizes(3072, 1536, 256, 8),
    ),
    "amd/Qwen3-235B-A22B-Instruct-2507-MXFP4": (
        plain("qwen3_moe", 4096, 1536, 128, 8, intermediate_size=12288,
              quantization_config=QUARK_W4A4),
        Sizes(4096, 1536, 128, 8),
    ),
    "amd/Llama-4-Scout-MXFP4": (
        {"model_type": "llama4", "quantization_config": QUARK_W4A16,
         "text_config": plain("llama4_text", 5120, 8192, 16, 1, **LOCAL,
                              intermediate_size_mlp=16384)},
        Sizes(5120, 8192, 16, 1),
    ),
    "a compressed-tensors MXFP4 model": (
        plain("glm4_moe", 4096, 1408, 128, 8, **ROUTED, quantization_config=COMPRESSED_MXFP4),
        Sizes(4096, 1408, 128, 8),
    ),
    "deepseek-ai/DeepSeek-R1": (
        plain("deepseek_v3", 7168, 2048, 256, 8, **ROUTED, quantization_config=FP8), "fp8",
    ),
    "Qwen/Qwen3-30B-A3B": (plain("qwen3_moe", 2048, 768, 128, 8), "not quantised"),
    "nvidia/DeepSeek-R1-NVFP4": (
        plain("deepseek_v3", 7168, 2048, 256, 8, **ROUTED, quantization_config=NVFP4), "modelopt",
    ),
    "moonshotai/Kimi-K2-Thinking": (
        plain("kimi_k2", 7168, 2048, 384, 8, **ROUTED, quantization_config=COMPRESSED_INT4),
        "pack-quantized",
    ),
    "Qwen/Qwen3-30B-A3B-GPTQ-Int4": (
        plain("qwen3_moe", 2048, 768, 128, 8,
              quantization_config={"quant_method": "gptq", "bits": 4}), "gptq",
    ),
    "a Quark model that says no more": (
        plain("minimax_m2", 3072, 1536, 256, 8, **LOCAL,
              quantization_config={"quant_method": "quark"}), "not whether its experts are MXFP4",
    ),
}  # fmt: skip

# The same and more, judged as w4a16: what their experts' sizes are.
SIZES: dict[str, tuple[Config, Sizes | tuple[Sizes, ...] | str]] = {
    "mistralai/Mixtral-8x7B": (
        plain("mixtral", 4096, 14336, 8, 2, **LOCAL), Sizes(4096, 14336, 8, 2)),
    "mistralai/Mixtral-8x22B": (
        plain("mixtral", 6144, 16384, 8, 2, **LOCAL), Sizes(6144, 16384, 8, 2)),
    "Qwen/Qwen1.5-MoE-A2.7B": (
        plain("qwen2_moe", 2048, 1408, 60, 4, intermediate_size=5632,
              shared_expert_intermediate_size=5632), Sizes(2048, 1408, 60, 4)),
    "Qwen/Qwen2-57B-A14B": (
        plain("qwen2_moe", 3584, 2560, 64, 8, intermediate_size=18944), Sizes(3584, 2560, 64, 8)),
    "Qwen/Qwen3-30B-A3B": (
        plain("qwen3_moe", 2048, 768, 128, 8, intermediate_size=6144), Sizes(2048, 768, 128, 8)),
    "Qwen/Qwen3-235B-A22B": (
        plain("qwen3_moe", 4096, 1536, 128, 8, intermediate_size=12288),
        Sizes(4096, 1536, 128, 8)),
    "Qwen/Qwen3-Coder-480B-A35B": (
        plain("qwen3_moe", 6144, 2560, 160, 8, intermediate_size=8192),
        Sizes(6144, 2560, 160, 8)),
    "Qwen/Qwen3-Next-80B-A3B": (
        plain("qwen3_next", 2048, 512, 512, 10, intermediate_size=5120,
              shared_expert_intermediate_size=512), Sizes(2048, 512, 512, 10)),
    "Qwen/Qwen3-VL-235B-A22B": (
        {"model_type": "qwen3_vl_moe",
         "text_config": plain("qwen3_vl_moe_text", 4096, 1536, 128, 8, intermediate_size=12288)},
        Sizes(4096, 1536, 128, 8)),
    "Qwen/Qwen3-Omni-30B-A3B": (
        {"model_type": "qwen3_omni_moe",
         "thinker_config": {"text_config": plain("qwen3_omni_moe_text", 2048, 768, 128, 8)},
         "talker_config": {"text_config": {"hidden_size": 1024, "num_experts": 128}}},
        Sizes(2048, 768, 128, 8)),
    "Qwen/Qwen3.5-397B-A17B": (
        {"model_type": "qwen3_5_moe",
         "text_config": plain("qwen3_5_moe_text", 4096, 1024, 512, 10)},
        Sizes(4096, 1024, 512, 10)),
    "deepseek-ai/DeepSeek-V2": (
        plain("deepseek_v2", 5120, 1536, 160, 6, **ROUTED, intermediate_size=12288,
              n_shared_experts=2), Sizes(5120, 1536, 160, 6)),
    "deepseek-ai/DeepSeek-V2-Lite": (
        plain("deepseek_v2", 2048, 1408, 64, 6, **ROUTED, intermediate_size=10944),
        Sizes(2048, 1408, 64, 6)),
    "deepseek-ai/deepseek-moe-16b": (
        plain("deepseek", 2048, 1408, 64, 6, **ROUTED, intermediate_size=10944),
        Sizes(2048, 1408, 64, 6)),
    "deepseek-ai/DeepSeek-V3": (
        plain("deepseek_v3", 7168, 2048, 256, 8, **ROUTED, quantization_config=FP8),
        Sizes(7168, 2048, 256, 8)),
    "deepseek-ai/DeepSeek-V3.2": (
        plain("deepseek_v32", 7168, 2048, 256, 8, **ROUTED, quantization_config=FP8),
        Sizes(7168, 2048, 256, 8)),
    "deepseek-ai/deepseek-vl2": (
        {"model_type": "deepseek_vl_v2",
         "language_config": plain("deepseek_v2", 2560, 1536, 72, 6, **ROUTED,
                                  intermediate_size=12288)},
        Sizes(2560, 1536, 72, 6)),
    "deepseek-ai/deepseek-vl2-small": (
        {"model_type": "deepseek_vl_v2",
         "language_config": plain("deepseek_v2", 2048, 1408, 64, 6, **ROUTED)},
        Sizes(2048, 1408, 64, 6)),
    "moonshotai/Kimi-K2": (
        plain("kimi_k2", 7168, 2048, 384, 8, **ROUTED, intermediate_size=18432,
              n_shared_experts=1), Sizes(7168, 2048, 384, 8)),
    "moonshotai/Kimi-VL-A3B": (
        {"model_type": "kimi_vl", "text_config": plain("deepseek_v3", 2048, 1408, 64, 6, **ROUTED)},
        Sizes(2048, 1408, 64, 6)),
    "moonshotai/Moonlight-16B-A3B": (
        plain("deepseek_v3", 2048, 1408, 64, 6, **ROUTED), Sizes(2048, 1408, 64, 6)),
    "moonshotai/Kimi-Linear-48B-A3B": (
        plain("kimi_linear", 2304, 1024, 256, 8, top_k_key="num_experts_per_token",
              intermediate_size=9216), Sizes(2304, 1024, 256, 8)),
    "moonshotai/Kimi-K3": (
        {"model_type": "kimi_k3",
         "text_config": plain("kimi_linear", 7168, 3072, 896, 16, act="situ",
                              top_k_key="num_experts_per_token",
                              routed_expert_hidden_size=3584)},
        Sizes(3584, 3072, 896, 16, "situ")),
    "zai-org/GLM-4.5": (
        plain("glm4_moe", 5120, 1536, 160, 8, **ROUTED, intermediate_size=12288),
        Sizes(5120, 1536, 160, 8)),
    "zai-org/GLM-4.5-Air": (
        plain("glm4_moe", 4096, 1408, 128, 8, **ROUTED, intermediate_size=10944),
        Sizes(4096, 1408, 128, 8)),
    "zai-org/GLM-4.5V": (
        {"model_type": "glm4v_moe",
         "text_config": plain("glm4v_moe_text", 4096, 1408, 128, 8, **ROUTED)},
        Sizes(4096, 1408, 128, 8)),
    "zai-org/GLM-4.6": (
        plain("glm4_moe", 5120, 1536, 160, 8, **ROUTED), Sizes(5120, 1536, 160, 8)),
    "zai-org/GLM-5": (
        plain("glm_moe_dsa", 6144, 2048, 256, 8, **ROUTED), Sizes(6144, 2048, 256, 8)),
    "zai-org/GLM-4.7-Flash": (
        plain("glm4_moe_lite", 2048, 1536, 64, 4, **ROUTED), Sizes(2048, 1536, 64, 4)),
    "meta-llama/Llama-4-Scout": (
        {"model_type": "llama4",
         "text_config": plain("llama4_text", 5120, 8192, 16, 1, **LOCAL,
                              intermediate_size_mlp=16384)}, Sizes(5120, 8192, 16, 1)),
    "meta-llama/Llama-4-Maverick": (
        {"model_type": "llama4",
         "text_config": plain("llama4_text", 5120, 8192, 128, 1, **LOCAL,
                              interleave_moe_layer_step=2)}, Sizes(5120, 8192, 128, 1)),
    "microsoft/Phi-3.5-MoE": (
        plain("phimoe", 4096, 6400, 16, 2, **LOCAL), Sizes(4096, 6400, 16, 2)),
    "microsoft/Phi-mini-MoE": (
        plain("phimoe", 4096, 960, 16, 2, **LOCAL), Sizes(4096, 960, 16, 2)),
    "ibm-granite/granite-3.1-1b-a400m": (
        plain("granitemoe", 1024, 512, 32, 8, **LOCAL), Sizes(1024, 512, 32, 8)),
    "ibm-granite/granite-3.1-3b-a800m": (
        plain("granitemoe", 1536, 512, 40, 8, **LOCAL), Sizes(1536, 512, 40, 8)),
    "ibm-granite/granite-4.0-h-tiny": (
        plain("granitemoehybrid", 1536, 512, 64, 6, **LOCAL, shared_intermediate_size=1024),
        Sizes(1536, 512, 64, 6)),
    "ibm-granite/granite-4.0-h-small": (
        plain("granitemoehybrid", 4096, 768, 72, 10, **LOCAL, shared_intermediate_size=1536),
        Sizes(4096, 768, 72, 10)),
    "allenai/OLMoE-1B-7B": (plain("olmoe", 2048, 1024, 64, 8, **FFN), Sizes(2048, 1024, 64, 8)),
    "allenai/FlexOlmo-7x7B": (
        plain("flex_olmo", 4096, 11008, 7, 5, **FFN), Sizes(4096, 11008, 7, 5)),
    "databricks/dbrx": (
        {"model_type": "dbrx", "d_model": 6144,
         "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4,
                        "ffn_act_fn": {"name": "silu"}}}, Sizes(6144, 10752, 16, 4)),
    "databricks/dbrx without its activation": (
        {"model_type": "dbrx", "d_model": 6144,
         "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}},
        "--activation"),
    "xai-org/grok-1": (
        plain("grok-1", 6144, 32768, 8, 2, **LOCAL, act="gelu"), "hidden_act is 'gelu'"),
    "xai-org/grok-2": (
        plain("git", 8192, 16384, 8, 2, experts_key="num_local_experts", act="gelu",
              intermediate_size=32768), "'gelu'"),
    "Snowflake/snowflake-arctic": (
        plain("arctic", 7168, 4864, 128, 2, **LOCAL), Sizes(7168, 4864, 128, 2)),
    "ai21labs/Jamba-1.5-Mini": (
        plain("jamba", 4096, 14336, 16, 2, **FFN), Sizes(4096, 14336, 16, 2)),
    "ai21labs/Jamba-1.5-Large": (
        plain("jamba", 8192, 24576, 16, 2, **FFN), Sizes(8192, 24576, 16, 2)),
    "MiniMaxAI/MiniMax-Text-01": (
        plain("minimax_text_01", 6144, 9216, 32, 2, **LOCAL), Sizes(6144, 9216, 32, 2)),
    "MiniMaxAI/MiniMax-M2": (
        plain("minimax_m2", 3072, 1536, 256, 8, **LOCAL), Sizes(3072, 1536, 256, 8)),
    "MiniMaxAI/MiniMax-M3": (
        plain("minimax_m3", 6144, 3072, 128, 4, **LOCAL, act="swigluoai",
              moe_intermediate_size=3072), Sizes(6144, 3072, 128, 4, "swigluoai")),
    "baidu/ERNIE-4.5-21B-A3B": (
        plain("ernie4_5_moe", 2560, 1536, 64, 6, experts_key="moe_num_experts", top_k_key="moe_k",
              intermediate_size=12288, moe_num_shared_experts=2), Sizes(2560, 1536, 64, 6)),
    "baidu/ERNIE-4.5-300B-A47B": (
        plain("ernie4_5_moe", 8192, 3584, 64, 8, experts_key="moe_num_experts", top_k_key="moe_k",
              intermediate_size=28672), Sizes(8192, 3584, 64, 8)),
    "baidu/ERNIE-4.5-VL-28B-A3B": (
        {"model_type": "ernie4_5_moe_vl", "hidden_size": 2560, "hidden_act": "silu",
         "moe_num_experts": [64, 64], "moe_k": 6, "moe_intermediate_size": [1536, 512]},
        (Sizes(2560, 1536, 64, 6), Sizes(2560, 512, 64, 6))),
    "tencent/Hunyuan-A13B": (
        {"model_type": "hunyuan_v1_moe", "hidden_size": 4096, "intermediate_size": 3072,
         "hidden_act": "silu", "num_experts": 64, "moe_intermediate_size": [3072] * 32,
         "moe_topk": [8] * 32, "num_shared_expert": [1] * 32}, Sizes(4096, 3072, 64, 8)),
    "tencent/Hunyuan-Large": (
        plain("hunyuan", 6400, 18304, 16, 1, **FFN, top_k_key="moe_topk"),
        Sizes(6400, 18304, 16, 1)),
    "rednote-hilab/dots.llm1": (
        plain("dots1", 4096, 1408, 128, 6, **ROUTED, intermediate_size=10944),
        Sizes(4096, 1408, 128, 6)),
    "inclusionAI/Ling-lite": (
        plain("bailing_moe", 2048, 1408, 64, 6, intermediate_size=5632), Sizes(2048, 1408, 64, 6)),
    "inclusionAI/Ling-1T": (
        plain("bailing_moe_v2", 8192, 2048, 256, 8, intermediate_size=18432),
        Sizes(8192, 2048, 256, 8)),
    "stepfun-ai/step3": (
        {"model_type": "step3_vl",
         "text_config": plain("step3_text", 7168, 5120, 48, 3, experts_key="moe_num_experts",
                              top_k_key="moe_top_k", intermediate_size=18432)},
        Sizes(7168, 5120, 48, 3)),
    "meituan-longcat/LongCat-Flash": (
        plain("longcat_flash", 6144, 2048, 512, 12, **ROUTED, width_key="expert_ffn_hidden_size",
              top_k_key="moe_topk", ffn_hidden_size=12288), Sizes(6144, 2048, 512, 12)),
    "nvidia/Nemotron-3-Nano-30B-A3B": (
        {"model_type": "nemotron_h", "hidden_size": 2688, "moe_intermediate_size": 1856,
         "n_routed_experts": 128, "num_experts_per_tok": 6, "mlp_hidden_act": "relu2"},
        "mlp_hidden_act is 'relu2'"),
    "nvidia/Nemotron-3-Super": (
        {"model_type": "nemotron_h", "hidden_size": 4096, "moe_latent_size": 1024,
         "moe_intermediate_size": 2688, "n_routed_experts": 512, "num_experts_per_tok": 22,
         "mlp_hidden_act": "relu2"}, "'relu2'"),
    "google/gemma-4-26B-A4B": (
        {"model_type": "gemma4", "text_config": {
            "model_type": "gemma4_text", "hidden_size": 2816, "intermediate_size": 2112,
            "moe_intermediate_size": 704, "num_experts": 128, "top_k_experts": 8,
            "hidden_activation": "gelu_pytorch_tanh"}}, "hidden_activation is 'gelu_pytorch_tanh'"),
    "rhymes-ai/Aria": (
        {"model_type": "aria",
         "text_config": plain("aria_text", 2560, 1664, 64, 6, **FFN | {
             "experts_key": "moe_num_experts"}, top_k_key="moe_topk")}, Sizes(2560, 1664, 64, 6)),
    "LiquidAI/LFM2-8B-A1B": (
        plain("lfm2_moe", 2048, 1792, 32, 4, intermediate_size=7168, num_dense_layers=2),
        Sizes(2048, 1792, 32, 4)),
    "ibm/jetmoe-8b": (
        {"model_type": "jetmoe", "hidden_size": 2048, "ffn_hidden_size": 5632,
         "moe_num_experts": 8, "moe_top_k": 2, "activation_function": "silu"},
        Sizes(2048, 5632, 8, 2)),
    "xverse/XVERSE-MoE-A4.2B": (
        plain("xverse", 2560, 1728, 64, 6, **FFN, top_k_key="moe_top_k"), Sizes(2560, 1728, 64, 6)),
    "Skywork/Skywork-MoE": (
        plain("skywork_moe", 4608, 12288, 16, 2, **FFN) | {
            "num_experts": [16] * 52, "num_experts_per_tok": [2] * 52},
        Sizes(4608, 12288, 16, 2)),
    "XiaomiMiMo/MiMo-V2-Flash": (
        plain("mimo_v2_flash", 4096, 2048, 256, 8, **ROUTED, intermediate_size=16384),
        Sizes(4096, 2048, 256, 8)),
    "arcee-ai/Trinity-Mini": (
        plain("afmoe", 2048, 1024, 128, 8, intermediate_size=6144, num_dense_layers=2),
        Sizes(2048, 1024, 128, 8)),
    "upstage/Solar-Open-100B": (
        plain("solar_open", 4096, 1280, 128, 8, **ROUTED), Sizes(4096, 1280, 128, 8)),
    "OpenGVLab/InternVL3.5-30B-A3B": (
        {"model_type": "internvl_chat", "llm_config": plain("qwen3_moe", 2048, 768, 128, 8)},
        Sizes(2048, 768, 128, 8)),
    "Qwen/Qwen3-8B, which is dense": (
        {"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288,
         "hidden_act": "silu"}, "num_experts"),
    "two activations that differ": (
        plain("qwen3_moe", 2048, 768, 128, 8, hidden_activation="gelu"), "activations differ"),
    "two numbers of experts that differ": (
        plain("qwen3_moe", 2048, 768, 128, 8, num_local_experts=64), "contradicts itself"),
}  # fmt: skip
