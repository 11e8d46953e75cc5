"""Every class, method and field of SGLang that `sglang_integration` relies on, so that a new release fails
here first, by name."""

import ast
import importlib
import inspect
import os
import re
from pathlib import Path

import pytest
from opennpu.sglang_integration.arguments import UNSUPPORTED

os.environ.setdefault("SGLANG_PLATFORM", "opennpu")

SRT = "sglang.srt"
INTEGRATION = Path(__file__).parents[3] / "sglang_integration"

CALLABLES = {
    # hooks that the platform overrides
    f"{SRT}.platforms.interface:SRTPlatform.apply_server_args_defaults": ["server_args"],
    f"{SRT}.platforms.interface:SRTPlatform.get_default_attention_backend": [],
    f"{SRT}.platforms.interface:SRTPlatform.get_kv_pool_cls": ["kind"],
    f"{SRT}.platforms.interface:SRTPlatform.get_paged_allocator_cls": [],
    f"{SRT}.mem_cache.allocator:PagedTokenToKVPoolAllocator.alloc_extend": [
        "prefix_lens", "prefix_lens_cpu", "seq_lens", "seq_lens_cpu", "last_loc", "extend_num_tokens",
        "num_new_pages",
    ],
    f"{SRT}.mem_cache.allocator:PagedTokenToKVPoolAllocator.alloc_decode": [
        "seq_lens", "seq_lens_cpu", "last_loc",
    ],
    f"{SRT}.mem_cache.allocator:PagedTokenToKVPoolAllocator.merge_and_sort_free": [],
    f"{SRT}.platforms.interface:SRTPlatform.get_dispatch_key_name": [],
    f"{SRT}.platforms.interface:SRTPlatform.get_compile_backend": ["mode"],
    f"{SRT}.platforms.interface:SRTPlatform.init_backend": [],
    f"{SRT}.platforms.interface:SRTPlatform.post_load_model": ["model"],
    f"{SRT}.platforms.interface:SRTPlatform.get_group_coordinator_device": ["local_rank"],
    f"{SRT}.platforms.interface:SRTPlatform.get_device": ["device_id"],
    f"{SRT}.platforms.interface:SRTPlatform.set_device": ["device"],
    f"{SRT}.platforms.interface:SRTPlatform.get_device_name": ["device_id"],
    f"{SRT}.platforms.interface:SRTPlatform.get_device_uuid": ["device_id"],
    f"{SRT}.platforms.interface:SRTPlatform.get_device_total_memory": ["device_id"],
    f"{SRT}.platforms.interface:SRTPlatform.get_current_memory_usage": ["device"],
    f"{SRT}.platforms.interface:SRTPlatform.get_available_memory": ["device_id"],
    f"{SRT}.platforms.interface:SRTPlatform.empty_cache": [],
    f"{SRT}.platforms.interface:SRTPlatform.synchronize": [],
    f"{SRT}.platforms.interface:SRTPlatform.is_pin_memory_available": ["device"],
    # attention
    f"{SRT}.layers.attention.attention_registry:register_attention_backend": ["name"],
    f"{SRT}.layers.attention.base_attn_backend:AttentionBackend.init_forward_metadata": ["forward_batch"],
    f"{SRT}.layers.attention.base_attn_backend:AttentionBackend.forward_extend": [
        "q", "k", "v", "layer", "forward_batch", "save_kv_cache",
    ],
    f"{SRT}.layers.attention.base_attn_backend:AttentionBackend.forward_decode": [
        "q", "k", "v", "layer", "forward_batch", "save_kv_cache",
    ],
    f"{SRT}.layers.attention.base_attn_backend:AttentionBackend.support_triton": [],
    # KV pool
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool.__init__": [
        "size", "page_size", "dtype", "head_num", "head_dim", "layer_num", "device", "enable_memory_saver",
        "v_head_dim",
    ],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool._create_buffers_normal": [],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool._kv_tokens_per_row": [],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool.get_kv_buffer": ["layer_id"],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool.set_kv_buffer": [
        "layer", "loc_info", "cache_k", "cache_v", "k_scale", "v_scale", "layer_id_override", "dcp_kv_mask",
    ],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool.get_cpu_copy": [
        "indices", "mamba_indices", "req_pool_index",
    ],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool.load_cpu_copy": [
        "kv_cache_cpu", "indices", "mamba_indices", "req_pool_index",
    ],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool.move_kv_cache": ["tgt_loc", "src_loc"],
    f"{SRT}.mem_cache.memory_pool:unwrap_write_loc": ["loc_info"],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool._mha_buffer_info": [],
    f"{SRT}.mem_cache.kv_cache_configurator:KVCacheConfigurator.configure": ["pre_model_load_memory"],
    f"{SRT}.mem_cache.kv_cache_configurator:KVCacheConfigurator._profile_available_bytes": [
        "pre_model_load_memory",
    ],
    f"{SRT}.mem_cache.kv_cache_configurator:KVCacheConfigurator.resolve_max_num_reqs": ["token_capacity"],
    # pages on the host
    f"{SRT}.mem_cache.pool_host.mha:get_mha_host_pool_cls": ["buffer_info"],
    f"{SRT}.mem_cache.pool_host.mha:MHATokenToKVPoolHost.init_kv_buffer": [],
    f"{SRT}.mem_cache.pool_host.mha:MHATokenToKVPoolHost._initialize_transfer_views": [
        "buffer_info", "write_back_staging",
    ],
    f"{SRT}.mem_cache.pool_host.mha:MHATokenToKVPoolHost.backup_from_device_all_layer": [
        "device_pool", "host_indices", "device_indices", "io_backend",
    ],
    f"{SRT}.mem_cache.pool_host.mha:MHATokenToKVPoolHost.load_to_device_per_layer": [
        "device_pool", "host_indices", "device_indices", "layer_id", "io_backend", "is_draft",
    ],
    f"{SRT}.managers.cache_controller:LayerDoneCounter.wait_until": ["threshold"],
    # sampling
    f"{SRT}.layers.sampler:register_sampler_backend": ["backend", "factory"],
    f"{SRT}.layers.sampler:Sampler.forward": [
        "logits_output", "sampling_info", "return_logprob", "top_logprobs_nums", "token_ids_logprobs",
        "positions", "logprob_logits",
    ],
    f"{SRT}.plugins.hook_registry:HookRegistry.register": ["target", "hook", "hook_type"],
    f"{SRT}.plugins.hook_registry:HookRegistry.apply_hooks": [],
    f"{SRT}.constrained.xgrammar_backend:XGrammarGrammar.apply_vocab_mask": ["logits", "vocab_mask"],
    f"{SRT}.constrained.xgrammar_backend:XGrammarGrammarBackend.apply_vocab_mask": ["logits", "vocab_mask"],
    # the forward of a model
    f"{SRT}.models.llama:LlamaForCausalLM.forward": ["input_ids", "positions", "forward_batch"],
    f"{SRT}.layers.logits_processor:LogitsProcessor.forward": [
        "input_ids", "hidden_states", "lm_head", "logits_metadata",
    ],
    f"{SRT}.layers.logits_processor:LogitsProcessor._get_logits": ["hidden_states", "lm_head"],
    f"{SRT}.model_executor.forward_context:get_attn_backend": [],
    f"{SRT}.model_executor.forward_context:forward_context": ["ctx", "forward_batch"],
    f"{SRT}.model_executor.forward_batch_info:CaptureHiddenMode.need_capture": [],
    f"{SRT}.model_executor.forward_batch_info:ForwardMode.is_decode": [],
    f"{SRT}.model_executor.forward_batch_info:ForwardMode.is_extend": [],
    # fused layers
    "sglang.kernels.fused_op:BaseFusedOp.register_oot_forward": [],
    "sglang.kernels.fused_op:BaseFusedOp._resolve_forward_method": [],
    # the server, and what is told of its batches
    "sglang.launch_server:prepare_server_args": ["argv"],
    "sglang.launch_server:run_server": ["server_args"],
    "sglang.launch_server:kill_process_tree": ["parent_pid", "include_parent"],
    "sglang.launch_server:load_plugins": [],
    f"{SRT}.utils.common:kill_itself_when_parent_died": [],
    f"{SRT}.managers.scheduler:Scheduler.process_batch_result": ["batch", "result"],
    f"{SRT}.managers.schedule_batch:Req.finished": [],
    f"{SRT}.mem_cache.allocator:BaseTokenToKVPoolAllocator.available_size": [],
    f"{SRT}.runtime_context:get_observability": [],
    f"{SRT}.runtime_context:get_schedule": [],
    # failures: what is hooked, and what the hooks call
    f"{SRT}.managers.scheduler:Scheduler.event_loop_normal": [],
    f"{SRT}.managers.scheduler:Scheduler.event_loop_overlap": [],
    f"{SRT}.managers.scheduler:Scheduler.flush_cache": [],
    f"{SRT}.managers.scheduler:Scheduler.get_next_batch_to_run": ["running_batch", "last_batch"],
    f"{SRT}.managers.scheduler_components.output_streamer:SchedulerOutputStreamer.stream_output": [
        "reqs", "return_logprob", "skip_req",
    ],
    f"{SRT}.managers.schedule_batch:FINISH_ABORT": ["message", "status_code", "err_type"],
    f"{SRT}.managers.schedule_batch:Req.update_finish_state": ["new_accepted_len"],
    f"{SRT}.managers.schedule_batch:ReqKvInfo.mark_kv_released": [],
    f"{SRT}.mem_cache.base_prefix_cache:BasePrefixCache.reset": [],
    f"{SRT}.mem_cache.memory_pool:ReqToTokenPool.clear": [],
    f"{SRT}.mem_cache.allocator:BaseTokenToKVPoolAllocator.clear": [],
    f"{SRT}.managers.schedule_batch:ScheduleBatch": ["reqs", "batch_is_full"],
    # loading a model without a server
    f"{SRT}.model_loader.loader:DefaultModelLoader.load_weights_and_postprocess": [
        "model", "weights", "target_device",
    ],
    f"{SRT}.model_loader.loader:DefaultModelLoader._get_all_weights": ["model_config", "model"],
    f"{SRT}.model_loader.loader:DefaultModelLoader.load_model": ["model_config", "device_config"],
    f"{SRT}.configs.model_config:ModelConfig.from_server_args": ["server_args"],
    f"{SRT}.server_args:ServerArgs.resolve_once": [],
    f"{SRT}.configs.device_config:DeviceConfig": ["device"],
    f"{SRT}.configs.load_config:LoadConfig": ["load_format"],
    f"{SRT}.runtime_context:publish": ["server_args", "role", "ranks"],
    f"{SRT}.runtime_context:SpawnRanks": ["world_rank", "gpu_id"],
    f"{SRT}.distributed.parallel_state:init_distributed_environment": [
        "backend", "world_size", "rank", "local_rank", "distributed_init_method",
    ],
    f"{SRT}.distributed.parallel_state:initialize_model_parallel": [],
    f"{SRT}.layers.dp_attention:initialize_dp_attention": ["server_args"],
    f"{SRT}.utils.network:get_open_port": [],
    f"{SRT}.models.registry:ModelRegistry.get_supported_archs": [],
}  # fmt: skip
"""What is called or overridden → parameters that it must have."""

FIELDS = {
    f"{SRT}.model_executor.forward_batch_info:ForwardBatch": [
        "forward_mode", "batch_size", "input_ids", "req_pool_indices", "seq_lens", "seq_lens_cpu",
        "seq_lens_sum", "out_cache_loc", "positions", "extend_seq_lens_cpu", "extend_logprob_start_lens_cpu",
        "return_logprob", "capture_hidden_mode", "multi_item_delimiter_indices", "token_indices_to_pool",
    ],
    f"{SRT}.model_executor.forward_batch_info:ForwardMode": ["EXTEND", "DECODE", "MIXED"],
    f"{SRT}.model_executor.forward_context:ForwardContext": ["attn_backend"],
    f"{SRT}.layers.logits_processor:LogitsProcessorOutput": ["next_token_logits"],
    f"{SRT}.sampling.sampling_batch_info:SamplingBatchInfo": [
        "temperatures", "top_ps", "top_ks", "min_ps", "sampling_seed", "sampling_mask_batch_indices",
        "sampling_support_logprobs_capture_indices", "is_all_greedy", "grammars",
        "has_custom_logit_processor", "custom_logit_processor", "device",
    ],
    f"{SRT}.sampling.sampling_batch_info:ProcessorEntry": ["indices"],
    f"{SRT}.layers.logits_processor:LogitsProcessor": ["logit_scale", "final_logit_softcapping"],
    f"{SRT}.layers.radix_attention:RadixAttention": [
        "layer_id", "tp_q_head_num", "tp_k_head_num", "tp_v_head_num", "qk_head_dim", "v_head_dim", "scaling",
        "logit_cap", "sliding_window_size", "is_cross_attention",
    ],
    f"{SRT}.mem_cache.memory_pool:ReqToTokenPool": ["req_to_token"],
    f"{SRT}.mem_cache.memory_pool:KVCache": [
        "size", "page_size", "store_dtype", "layer_num", "start_layer", "device", "layer_transfer_counter",
    ],
    f"{SRT}.mem_cache.device_pool_info:MHABufferInfo": ["transfer_buffers"],
    f"{SRT}.mem_cache.pool_host.mha:MHATokenToKVPoolHost": [
        "page_size", "page_num", "layer_num", "head_num", "head_dim", "v_head_dim", "dtype", "kv_buffer",
    ],
    f"{SRT}.mem_cache.memory_pool:MHATokenToKVPool": [
        "k_buffer", "v_buffer", "head_num", "head_dim", "v_head_dim",
    ],
    f"{SRT}.managers.utils:GenerationBatchResult": ["copy_done", "delay_sample_func"],
    f"{SRT}.models.llama:LlamaForCausalLM": ["config", "lm_head", "logits_processor"],
    f"{SRT}.layers.layernorm:RMSNorm": [
        "weight", "variance_epsilon", "variance_size_override", "fp32_residual", "override_orig_dtype",
    ],
    f"{SRT}.layers.activation:GeluAndMul": ["approximate"],
    f"{SRT}.layers.rotary_embedding:RotaryEmbedding": ["cos_sin_cache", "head_size", "is_neox_style"],
    f"{SRT}.layers.moe.topk:TopK": ["topk_config"],
    f"{SRT}.layers.moe.topk:TopKConfig": [
        "top_k", "renormalize", "scoring_func", "use_grouped_topk", "custom_routing_function",
        "correction_bias", "num_shared_topk_slots", "apply_routed_scaling_factor_on_output",
    ],
    f"{SRT}.layers.moe.fused_moe_triton.layer:FusedMoE": ["layer_id", "num_experts", "moe_runner_config"],
    f"{SRT}.layers.moe.moe_runner.base:MoeRunnerConfig": [
        "activation", "is_gated", "apply_router_weight_on_input", "no_combine", "gemm1_alpha",
        "gemm1_clamp_limit", "swiglu_limit",
    ],
    f"{SRT}.layers.moe.token_dispatcher.standard:StandardDispatchOutput": ["hidden_states", "topk_output"],
    f"{SRT}.layers.quantization.unquant:UnquantizedFusedMoEMethod": ["w13_swiglu_interleaved"],
    f"{SRT}.layers.moe.topk:StandardTopKOutput": ["topk_weights", "topk_ids", "router_logits"],
    f"{SRT}.layers.moe.token_dispatcher:StandardCombineInput": ["hidden_states"],
    "sglang.kernels.fused_op:BaseFusedOp": ["_forward_method", "forward_native"],
    f"{SRT}.models.llama:LlamaModel": ["embed_tokens"],
    f"{SRT}.platforms.device_mixin:PlatformEnum": ["OOT"],
    f"{SRT}.server_args:ServerArgs": [
        "model_path", "dtype", "mem_fraction_static", "chunked_prefill_size", "device", "attention_backend",
        "sampling_backend", "disable_cuda_graph",
        "skip_tokenizer_init", "log_level", "page_size", "sleep_on_idle", "served_model_name",
        "disable_hybrid_swa_memory", "enable_metrics", "hicache_io_backend", "hicache_mem_layout",
        *(rule.field for rule in UNSUPPORTED),
    ],
    f"{SRT}.plugins.hook_registry:HookType": ["AFTER", "AROUND"],
    f"{SRT}.platforms.interface:SRTPlatform": ["_enum", "device_name", "device_type"],
    f"{SRT}.managers.schedule_batch:ScheduleBatch": [
        "reqs", "forward_mode", "extend_lens", "seq_lens_cpu", "launch_ts", "return_logprob",
    ],
    f"{SRT}.managers.schedule_batch:Req": [
        "output_ids", "time_stats", "to_finish", "finished_reason",
        "inflight_middle_chunks", "kv", "lock", "return_logprob",
        "finished_output",
    ],
    f"{SRT}.observability.req_time_stats:SchedulerReqTimeStats": ["wait_queue_entry_time"],
    f"{SRT}.managers.scheduler:Scheduler": [
        "tp_worker", "token_to_kv_pool_allocator", "server_args", "waiting_queue", "running_batch",
        "last_batch", "result_queue", "chunked_req", "tree_cache", "_pending_chunked_abort_req",
        "req_to_token_pool", "output_streamer",
    ],
    f"{SRT}.managers.schedule_batch:ReqKvInfo": ["req_pool_idx"],
    f"{SRT}.managers.tp_worker:TpModelWorker": ["model_runner"],
    f"{SRT}.model_executor.model_runner:ModelRunner": ["model", "req_to_token_pool", "token_to_kv_pool"],
    f"{SRT}.mem_cache.allocator:BaseTokenToKVPoolAllocator": ["size", "page_size"],
    f"{SRT}.mem_cache.allocator:PagedTokenToKVPoolAllocator": ["page_size", "device", "free_pages"],
}  # fmt: skip
"""Class → attributes that it or its instances must have."""

NAMES = [
    f"{SRT}.layers.activation:SiluAndMul",
    f"{SRT}.layers.quantization.unquant:UnquantizedFusedMoEMethod",
    f"{SRT}.platforms:current_platform",
    f"{SRT}.plugins.hook_registry:HookRegistry.register",
    f"{SRT}.plugins.hook_registry:HookType.AFTER",
    f"{SRT}.managers.scheduler:Scheduler.process_batch_result",
    f"{SRT}.runtime_context:get_observability",
    f"{SRT}.utils.common:kill_itself_when_parent_died",
    "sglang.launch_server:kill_process_tree",
    "sglang.launch_server:load_plugins",
    "sglang.launch_server:prepare_server_args",
    "sglang.launch_server:run_server",
    f"{SRT}.plugins.hook_registry:HookType",
]
"""Classes and values that are used as they are."""

CALLS = {
    f"{SRT}.model_executor.model_runner": [
        "current_platform.init_backend()", "current_platform.post_load_model(self.model)",
    ],
    f"{SRT}.model_executor.runner.eager_runner": [
        "model_runner.model.forward(", "attn_backend.init_forward_metadata(forward_batch)",
    ],
    f"{SRT}.mem_cache.hybrid_cache.hybrid_pool_assembler": ["get_mha_host_pool_cls(info)"],
    f"{SRT}.mem_cache.l2_transfer": [
        "host_pool.backup_from_device_all_layer_physical(", "host_pool.load_to_device_per_layer_physical(",
    ],
    f"{SRT}.mem_cache.kv_cache_configurator": [
        "current_platform.get_kv_pool_cls(kind=kind)", "current_platform.get_paged_allocator_cls()",
        "self._profile_available_bytes(", "self.model_config.context_len",
    ],
    f"{SRT}.plugins": ['"sglang.srt.platforms"', '"sglang.srt.plugins"'],
    f"{SRT}.entrypoints.http_server": ["The server is fired up and ready to roll!"],
    f"{SRT}.utils.watchdog": ["(pid={proc.pid}) crashed "],
    f"{SRT}.utils.common": ["PROMETHEUS_MULTIPROC_DIR"],
    f"{SRT}.model_executor.model_runner_components.weight_updater": ["_derived_weight_cache_error"],
    f"{SRT}.observability.metrics_collector": [
        '"sglang:evicted_tokens_total"', '"sglang:num_retracted_requests_total"',
    ],
    f"{SRT}.layers.quantization.unquant": [
        'layer.register_parameter("w13_weight"', 'layer.register_parameter("w2_weight"',
        'layer.register_parameter("w13_weight_bias"',
    ],
    f"{SRT}.environ": ["SGLANG_PLATFORM", "SGLANG_ROPE_CACHE_FP32", "SGLANG_ENABLE_WAR_BARRIER"],
}  # fmt: skip
"""Module → source text without which a hook of ours is never called."""


def find(path: str):
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    for part in filter(None, name.split(".")):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", CALLABLES)
def test_callable(path):
    missing = set(CALLABLES[path]) - set(inspect.signature(find(path)).parameters)
    assert not missing, f"{path} has no parameter {', '.join(missing)}"


@pytest.mark.parametrize("path", FIELDS)
def test_fields(path):
    cls = find(path)
    source = "".join(inspect.getsource(c) for c in cls.__mro__ if c.__module__.startswith("sglang"))
    known = set(re.findall(r"\bself\.(\w+)(?::[^=\n]+)? =", source))
    known |= set(re.findall(r"^    (\w+)\s*[:=]", source, re.MULTILINE))
    known |= set(re.findall(r'register_buffer\(\s*"(\w+)"', source))
    missing = [name for name in FIELDS[path] if name not in known and not hasattr(cls, name)]
    assert not missing, f"{path} has no {', '.join(missing)}"


@pytest.mark.parametrize("module", CALLS)
def test_hooks_are_called(module):
    source = inspect.getsource(importlib.import_module(module))
    missing = [text for text in CALLS[module] if text not in source]
    assert not missing, f"{module} no longer has {missing}"


@pytest.mark.parametrize("file", sorted(INTEGRATION.glob("*.py")), ids=lambda file: file.name)
def test_every_name_is_listed(file):
    """What our files import of SGLang, and name in strings as hooks, is there and in a table above."""
    listed = {path.replace(":", ".") for path in (*CALLABLES, *FIELDS, *CALLS, *NAMES)}
    unlisted = set()
    for path in names_of_sglang(file):
        find_dotted(path)
        if not any(f"{known}.".startswith(f"{path}.") for known in listed):
            unlisted.add(path)
    assert not unlisted, f"{file.name} relies on names that no table lists: {sorted(unlisted)}"


def names_of_sglang(file: Path) -> set[str]:
    """Dotted paths of what a file imports of SGLang, and of the hooks that it names."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sglang"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("sglang")}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"^sglang\.\w+(?:\.\w+){2,}$", node.value))
    return found


def find_dotted(path: str):
    """The object at a dotted path, which says not where the module ends."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            return find(f"{'.'.join(parts[:end])}:{'.'.join(parts[end:])}")
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(path)


@pytest.mark.parametrize("path", NAMES)
def test_name(path):
    find(path)


def test_every_override_is_of_a_hook():
    """A method of ours that SGLang does not know is never called."""
    from opennpu.sglang_integration.platform import OpenNpuPlatform
    from sglang.srt.platforms.interface import SRTPlatform

    own = {name for name in vars(OpenNpuPlatform) if not name.startswith("__")}
    assert own <= set(dir(SRTPlatform))
    listed = {path.rpartition(".")[2] for path in CALLABLES if "SRTPlatform" in path}
    assert {name for name in own if callable(getattr(OpenNpuPlatform, name))} == listed
