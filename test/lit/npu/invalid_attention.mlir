// RUN: npu-opt %s --split-input-file --verify-diagnostics
// The verifiers of rotary embedding and paged attention.

func.func @rope_heads(%x: tensor<?x24xbf16, ["T", "24"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<32x16xf32>) {
  // expected-error@+1 {{width of x 24 is not a multiple of 16}}
  %0 = "npu.rope"(%x, %p, %c) {head_dim = 16, neox = true} : (tensor<?x24xbf16, ["T", "24"]>, tensor<?xi64, ["T"]>, tensor<32x16xf32>) -> tensor<?x24xbf16, ["T", "24"]>
  return
}

// -----

func.func @rope_cache(%x: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<32x20xf32>) {
  // expected-error@+1 {{cache has 20 columns, more than head_dim 16}}
  %0 = "npu.rope"(%x, %p, %c) {head_dim = 16, neox = true} : (tensor<?x32xbf16, ["T", "32"]>, tensor<?xi64, ["T"]>, tensor<32x20xf32>) -> tensor<?x32xbf16, ["T", "32"]>
  return
}

// -----

func.func @rope_positions(%x: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["B"]>, %c: tensor<32x16xf32>) {
  // expected-error@+1 {{positions has extents [B], expected [T]}}
  %0 = "npu.rope"(%x, %p, %c) {head_dim = 16, neox = true} : (tensor<?x32xbf16, ["T", "32"]>, tensor<?xi64, ["B"]>, tensor<32x16xf32>) -> tensor<?x32xbf16, ["T", "32"]>
  return
}

// -----

func.func @kv_write(%k: tensor<?x32xbf16, ["T", "32"]>, %v: tensor<?x16xbf16, ["T", "16"]>, %s: tensor<?xi64, ["T"]>) {
  // expected-error@+1 {{v has extents [T, 16], expected [T, 32]}}
  "npu.kv_write"(%k, %v, %s) {layer = 0, kv_heads = 2, head_dim = 16, v_head_dim = 16} : (tensor<?x32xbf16, ["T", "32"]>, tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>) -> ()
  return
}

// -----

func.func @attention_table(%q: tensor<?x64xbf16, ["T", "64"]>, %t: tensor<?x?xi64, ["B", "P"]>, %l: tensor<?xi64, ["B"]>, %s: tensor<?xi64, ["B + 1"]>) {
  // expected-error@+1 {{block_table is i64, expected i32}}
  %0 = "npu.paged_attention"(%q, %t, %l, %s) {layer = 0, heads = 4, kv_heads = 2, head_dim = 16, v_head_dim = 16, scale = 0.25 : f32, logit_cap = 0.0 : f32, window = 0} : (tensor<?x64xbf16, ["T", "64"]>, tensor<?x?xi64, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x64xbf16, ["T", "64"]>
  return
}

// -----

func.func @attention_starts(%q: tensor<?x64xbf16, ["T", "64"]>, %t: tensor<?x?xi32, ["B", "P"]>, %l: tensor<?xi64, ["B"]>, %s: tensor<?xi64, ["B"]>) {
  // expected-error@+1 {{q_start has extents [B], expected [B + 1]}}
  %0 = "npu.paged_attention"(%q, %t, %l, %s) {layer = 0, heads = 4, kv_heads = 2, head_dim = 16, v_head_dim = 16, scale = 0.25 : f32, logit_cap = 0.0 : f32, window = 0} : (tensor<?x64xbf16, ["T", "64"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B"]>) -> tensor<?x64xbf16, ["T", "64"]>
  return
}

// -----

func.func @attention_heads(%q: tensor<?x48xbf16, ["T", "48"]>, %t: tensor<?x?xi32, ["B", "P"]>, %l: tensor<?xi64, ["B"]>, %s: tensor<?xi64, ["B + 1"]>) {
  // expected-error@+1 {{heads 3 is not a multiple of 2}}
  %0 = "npu.paged_attention"(%q, %t, %l, %s) {layer = 0, heads = 3, kv_heads = 2, head_dim = 16, v_head_dim = 16, scale = 0.25 : f32, logit_cap = 0.0 : f32, window = 0} : (tensor<?x48xbf16, ["T", "48"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x48xbf16, ["T", "48"]>
  return
}

// -----

func.func @rope_kv_write(%x: tensor<?x100xbf16, ["T", "100"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<32x16xf32>, %s: tensor<?xi64, ["T"]>) {
  // expected-error@+1 {{qkv has extents [T, 100], expected [T, 128]}}
  %0 = "npu.rope_kv_write"(%x, %p, %c, %s) {layer = 0, heads = 4, kv_heads = 2, head_dim = 16, v_head_dim = 16, neox = true} : (tensor<?x100xbf16, ["T", "100"]>, tensor<?xi64, ["T"]>, tensor<32x16xf32>, tensor<?xi64, ["T"]>) -> tensor<?x64xbf16, ["T", "64"]>
  return
}

// -----

func.func @dense_heads(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, %k: tensor<?x3x?x16xbf16, ["B", "3", "S", "16"]>, %v: tensor<?x3x?x16xbf16, ["B", "3", "S", "16"]>, %m: tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) {
  // expected-error@+1 {{heads 4 is not a multiple of 3}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x3x?x16xbf16, ["B", "3", "S", "16"]>, tensor<?x3x?x16xbf16, ["B", "3", "S", "16"]>, tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  return
}

// -----

func.func @dense_head_dim(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, %k: tensor<?x2x?x8xbf16, ["B", "2", "S", "8"]>, %v: tensor<?x2x?x8xbf16, ["B", "2", "S", "8"]>, %m: tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) {
  // expected-error@+1 {{k has heads of 8, q of 16}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x8xbf16, ["B", "2", "S", "8"]>, tensor<?x2x?x8xbf16, ["B", "2", "S", "8"]>, tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  return
}

// -----

func.func @dense_batch(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, %k: tensor<?x2x?x16xbf16, ["A", "2", "S", "16"]>, %v: tensor<?x2x?x16xbf16, ["A", "2", "S", "16"]>, %m: tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) {
  // expected-error@+1 {{k has a batch of [A], q of [B]}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x16xbf16, ["A", "2", "S", "16"]>, tensor<?x2x?x16xbf16, ["A", "2", "S", "16"]>, tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  return
}

// -----

func.func @dense_values(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, %k: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, %v: tensor<?x2x?x16xbf16, ["B", "2", "R", "16"]>, %m: tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) {
  // expected-error@+1 {{v has extents [B, 2, R, 16], expected [B, 2, S, 16]}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "R", "16"]>, tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  return
}

// -----

func.func @dense_mask(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, %k: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, %v: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, %m: tensor<?x1x?x?xi1, ["B", "1", "T", "S"]>) {
  // expected-error@+1 {{mask has extents [B, 1, T, S], expected [B, 4, T, S]}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x1x?x?xi1, ["B", "1", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  return
}

// -----

func.func @dense_mask_dtype(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, %k: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, %v: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, %m: tensor<?x4x?x?xi32, ["B", "4", "T", "S"]>) {
  // expected-error@+1 {{mask is i32, expected i1 or f32 or bf16}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x4x?x?xi32, ["B", "4", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  return
}

// -----

func.func @dense_dtype(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, %k: tensor<?x2x?x16xf32, ["B", "2", "S", "16"]>, %v: tensor<?x2x?x16xf32, ["B", "2", "S", "16"]>, %m: tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) {
  // expected-error@+1 {{k is f32, expected bf16}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x16xf32, ["B", "2", "S", "16"]>, tensor<?x2x?x16xf32, ["B", "2", "S", "16"]>, tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  return
}

// -----

func.func @dense_symbolic_heads(%q: tensor<?x?x?x16xbf16, ["B", "H", "T", "16"]>, %k: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, %v: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, %m: tensor<?x?x?x?xi1, ["B", "H", "T", "S"]>) {
  // expected-error@+1 {{heads H is not static}}
  %0 = "npu.dense_attention"(%q, %k, %v, %m) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x?x?x16xbf16, ["B", "H", "T", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x?x?x?xi1, ["B", "H", "T", "S"]>) -> tensor<?x?x?x16xbf16, ["B", "H", "T", "16"]>
  return
}

// -----

func.func @varlen_starts(%q: tensor<?x4x16xf32, ["T", "4", "16"]>, %s: tensor<?xi64, ["B + 1"]>, %t: tensor<?xi64, ["B"]>) {
  // expected-error@+1 {{k_start has extents [B], expected [B + 1]}}
  %0 = "npu.varlen_attention"(%q, %q, %q, %s, %t) {scale = 0.25 : f32, logit_cap = 0.0 : f32, causal = true, window = 0} : (tensor<?x4x16xf32, ["T", "4", "16"]>, tensor<?x4x16xf32, ["T", "4", "16"]>, tensor<?x4x16xf32, ["T", "4", "16"]>, tensor<?xi64, ["B + 1"]>, tensor<?xi64, ["B"]>) -> tensor<?x4x16xf32, ["T", "4", "16"]>
  return
}
