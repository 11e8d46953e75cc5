// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// The operators that stay whole: attention writes its keys first, the rotation is one op for q and one for k.

// CHECK: %[[Q:.*]] = npu.rope %q, %positions, %cache {head_dim = 16, neox} : bf16[T, 64]
// CHECK: %[[K:.*]] = npu.rope %k, %positions, %cache {head_dim = 16, neox} : bf16[T, 32]
// CHECK: npu.kv_write %[[K]], %k, %slots {head_dim = 16, kv_heads = 2, layer = 3, v_head_dim = 16}
// CHECK: %[[TABLE:.*]] = npu.cast %table : i32[B, P]
// CHECK: npu.paged_attention %[[Q]], %[[TABLE]], %lens, %starts {head_dim = 16, heads = 4, kv_heads = 2, layer = 3, logit_cap = 0, scale = 0.25, v_head_dim = 16, window = 0} : bf16[T, 64]
// CHECK: %[[N:.*]], %[[S:.*]] = npu.add_rms_norm %{{.*}}, %q, %w {eps = {{.*}}} : bf16[T, 64], bf16[T, 64]
// CHECK: npu.rms_norm %[[N]], %w
// CHECK: npu.silu_and_mul %{{.*}} : bf16[T, 32]
// CHECK: npu.gelu_and_mul %{{.*}} {approximate = tanh} : bf16[T, 16]
func.func @main(%q: !torch.vtensor<[?,64],bf16> {npu.input = "q", npu.dims = ["T", "64"]}, %k: !torch.vtensor<[?,32],bf16> {npu.input = "k", npu.dims = ["T", "32"]}, %positions: !torch.vtensor<[?],si64> {npu.input = "positions", npu.dims = ["T"]}, %slots: !torch.vtensor<[?],si64> {npu.input = "slots", npu.dims = ["T"]}, %table: !torch.vtensor<[?,?],si64> {npu.input = "table", npu.dims = ["B", "P"]}, %lens: !torch.vtensor<[?],si64> {npu.input = "lens", npu.dims = ["B"]}, %starts: !torch.vtensor<[?],si64> {npu.input = "starts", npu.dims = ["B + 1"]}, %cache: !torch.vtensor<[128,16],f32> {npu.param = "cache"}, %w: !torch.vtensor<[64],bf16> {npu.param = "w"}) -> !torch.vtensor<[?,16],bf16> {
  %int0 = torch.constant.int 0
  %int2 = torch.constant.int 2
  %int3 = torch.constant.int 3
  %int4 = torch.constant.int 4
  %int16 = torch.constant.int 16
  %true = torch.constant.bool true
  %scale = torch.constant.float 2.500000e-01
  %zero = torch.constant.float 0.000000e+00
  %eps = torch.constant.float 1.000000e-06
  %tanh = torch.constant.str "tanh"
  %0:2 = torch.operator "torch.opennpu.rotary_embedding"(%positions, %q, %k, %cache, %int16, %true) : (!torch.vtensor<[?],si64>, !torch.vtensor<[?,64],bf16>, !torch.vtensor<[?,32],bf16>, !torch.vtensor<[128,16],f32>, !torch.int, !torch.bool) -> (!torch.vtensor<[?,64],bf16>, !torch.vtensor<[?,32],bf16>)
  %1 = torch.operator "torch.opennpu.paged_attention"(%0#0, %0#1, %k, %slots, %table, %lens, %starts, %int3, %int4, %int2, %int16, %int16, %scale, %zero, %int0) : (!torch.vtensor<[?,64],bf16>, !torch.vtensor<[?,32],bf16>, !torch.vtensor<[?,32],bf16>, !torch.vtensor<[?],si64>, !torch.vtensor<[?,?],si64>, !torch.vtensor<[?],si64>, !torch.vtensor<[?],si64>, !torch.int, !torch.int, !torch.int, !torch.int, !torch.int, !torch.float, !torch.float, !torch.int) -> !torch.vtensor<[?,64],bf16>
  %2:2 = torch.operator "torch.opennpu.add_rms_norm"(%1, %q, %w, %eps) : (!torch.vtensor<[?,64],bf16>, !torch.vtensor<[?,64],bf16>, !torch.vtensor<[64],bf16>, !torch.float) -> (!torch.vtensor<[?,64],bf16>, !torch.vtensor<[?,64],bf16>)
  %3 = torch.operator "torch.opennpu.rms_norm"(%2#0, %w, %eps) : (!torch.vtensor<[?,64],bf16>, !torch.vtensor<[64],bf16>, !torch.float) -> !torch.vtensor<[?,64],bf16>
  %4 = torch.operator "torch.opennpu.silu_and_mul"(%3) : (!torch.vtensor<[?,64],bf16>) -> !torch.vtensor<[?,32],bf16>
  %5 = torch.operator "torch.opennpu.gelu_and_mul"(%4, %tanh) : (!torch.vtensor<[?,32],bf16>, !torch.str) -> !torch.vtensor<[?,16],bf16>
  return %5 : !torch.vtensor<[?,16],bf16>
}
