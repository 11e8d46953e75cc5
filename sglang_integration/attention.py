"""SGLang's attention backend `opennpu`: the batch as pages, and attention layer by layer."""

from dataclasses import dataclass

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from torch import Tensor

NAME = "opennpu"


@dataclass(frozen=True)
class Paging:
    """Where a batch's tokens lie; the inputs of these names of `ops.paged_attention`, on the device."""

    slot_mapping: Tensor  # [T] int64
    block_table: Tensor  # [B, P] int32
    seq_lens: Tensor  # [B] int64
    q_start: Tensor  # [B + 1] int64
    last_rows: Tensor  # [B] int64: the row of each sequence's last token


class OpenNpuAttention(AttentionBackend):
    """Attention of a model that runs operator by operator, on `radix_attention_*`.

    `paging` is that of the batch at hand, for compiled programs too.
    """

    def __init__(self, runner):
        super().__init__()
        self.req_to_token = runner.req_to_token_pool.req_to_token
        self.token_to_kv_pool = runner.token_to_kv_pool
        self.page_size = runner.token_to_kv_pool.page_size
        self.steps = torch.arange(len(self.req_to_token) + 1, device=self.req_to_token.device)
        self.paging: Paging | None = None

    def init_forward_metadata(self, forward_batch):
        self.token_to_kv_pool.wait_for_host_pages()
        longest = int(forward_batch.seq_lens_cpu.max())
        first_slots = self.req_to_token[:, : longest : self.page_size]
        pages = first_slots.index_select(0, forward_batch.req_pool_indices) // self.page_size
        starts, last_rows = self._rows(forward_batch)
        self.paging = Paging(
            forward_batch.out_cache_loc.to(torch.int64),
            pages.to(torch.int32),
            forward_batch.seq_lens.to(torch.int64),
            starts,
            last_rows,
        )

    def _rows(self, forward_batch) -> tuple[Tensor, Tensor]:
        """`q_start` and `last_rows`; nothing is computed for single tokens."""
        count = forward_batch.batch_size
        if forward_batch.forward_mode.is_decode():
            return self.steps[: count + 1], self.steps[:count]
        ends = torch.tensor([0, *forward_batch.extend_seq_lens_cpu]).cumsum(0)
        rows = torch.cat([ends, ends[1:] - 1]).to(self.steps.device, non_blocking=True)
        return rows[: count + 1], rows[count + 1 :]

    def forward_extend(self, q, k, v, layer, forward_batch, save_kv_cache=True, **options):
        return self._attend(torch.ops.opennpu.radix_attention_extend, q, k, v, layer, save_kv_cache, options)

    def forward_decode(self, q, k, v, layer, forward_batch, save_kv_cache=True, **options):
        return self._attend(torch.ops.opennpu.radix_attention_decode, q, k, v, layer, save_kv_cache, options)

    def _attend(self, op, q, k, v, layer, save_kv_cache, options) -> Tensor:
        if k is None or not save_kv_cache or layer.is_cross_attention:
            raise NotImplementedError(f"attention layer {layer.layer_id}: keys that it does not write")
        if any(option is not None for option in options.values()):
            raise NotImplementedError(f"attention layer {layer.layer_id}: {', '.join(options)}")
        paging = self.paging
        starts = [paging.q_start] if op is torch.ops.opennpu.radix_attention_extend else []
        out = op(
            q.view(-1, layer.tp_q_head_num, layer.qk_head_dim),
            k.view(-1, layer.tp_k_head_num, layer.qk_head_dim),
            v.view(-1, layer.tp_v_head_num, layer.v_head_dim),
            *self.token_to_kv_pool.get_kv_buffer(layer.layer_id),
            paging.slot_mapping,
            paging.block_table,
            paging.seq_lens,
            *starts,
            softmax_scale=float(layer.scaling),
            window_left=layer.sliding_window_size,
            softcap=float(layer.logit_cap or 0),
        )
        return out.view(-1, layer.tp_q_head_num * layer.v_head_dim)

    def support_triton(self) -> bool:
        return False


def register() -> None:
    """Makes the backend known to SGLang by its name."""
    from sglang.srt.layers.attention.attention_registry import register_attention_backend

    register_attention_backend(NAME)(OpenNpuAttention)
