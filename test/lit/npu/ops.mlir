// RUN: npu-opt %s | npu-opt | FileCheck %s --check-prefix=ROUND
// RUN: npu-opt %s --pretty | FileCheck %s
// Every op of the dialect: MLIR's text round-trips, the pretty text is readable.

// ROUND: "npu.matmul"(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) {epilogue = ["bias", "gelu", "residual"], operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>, transpose_w = true}
// ROUND: "npu.repeat"

// CHECK-LABEL: func @rows(%x: f32[T, 8]
// CHECK: npu.constant {value = 2} : f32[T, 8]
// CHECK: npu.extent {value = T + 1} : i64[]
// CHECK: npu.iota {dim = 1, start = 1, step = 2} : i64[T, 8]
// CHECK: npu.unary %x {op = exp} : f32[T, 8]
// CHECK: npu.binary %{{.*}}, %x {op = lt} : i1[T, 8]
// CHECK: npu.select %{{.*}}, %x, %{{.*}} : f32[T, 8]
// CHECK: npu.cast %{{.*}} : bf16[T, 8]
// CHECK: npu.reduce %{{.*}} {dim = 1, keepdim, op = argmax} : i64[T, 1]
// CHECK: npu.cumsum %x : f32[T, 8]
// CHECK: npu.softmax %x : f32[T, 8]
// CHECK: npu.rms_norm %x, %w {eps = {{.*}}} : f32[T, 8]
// CHECK: npu.layer_norm %x, %w, %w {eps = {{.*}}} : f32[T, 8]
// CHECK: %{{.*}}, %{{.*}} = npu.add_rms_norm %x, %x, %w {eps = {{.*}}} : f32[T, 8], f32[T, 8]
// CHECK: npu.silu_and_mul %x : f32[T, 4]
// CHECK: npu.gelu_and_mul %x {approximate = none} : f32[T, 4]
func.func @rows(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %w: tensor<8xf32> {npu.param = "w"}) {
  %0 = "npu.constant"() {value = 2.0 : f32} : () -> tensor<?x8xf32, ["T", "8"]>
  %n = "npu.extent"() {value = "T + 1"} : () -> tensor<i64>
  %1 = "npu.iota"() {dim = 1, start = 1, step = 2} : () -> tensor<?x8xi64, ["T", "8"]>
  %2 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %3 = "npu.binary"(%2, %x) {op = "lt"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xi1, ["T", "8"]>
  %4 = "npu.select"(%3, %x, %0) : (tensor<?x8xi1, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %5 = "npu.cast"(%4) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %6 = "npu.reduce"(%5) {op = "argmax", dim = 1, keepdim = true} : (tensor<?x8xbf16, ["T", "8"]>) -> tensor<?x1xi64, ["T", "1"]>
  %s = "npu.cumsum"(%x) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %7 = "npu.softmax"(%x) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %8 = "npu.rms_norm"(%x, %w) {eps = 1.0e-5 : f32} : (tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %9 = "npu.layer_norm"(%x, %w, %w) {eps = 1.0e-5 : f32} : (tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>, tensor<8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %10:2 = "npu.add_rms_norm"(%x, %x, %w) {eps = 1.0e-5 : f32} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>)
  %11 = "npu.silu_and_mul"(%x) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x4xf32, ["T", "4"]>
  %12 = "npu.gelu_and_mul"(%x) {approximate = "none"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x4xf32, ["T", "4"]>
  return
}

// CHECK-LABEL: func @products(
// CHECK: npu.matmul %x, %w, %b, %r {epilogue = [bias, gelu, residual], transpose_w} : f32[T, 6]
// CHECK: npu.matmul %x, %w {epilogue = [gate_silu], transpose_w} : bf16[T, 3]
func.func @products(%x: tensor<?x8xbf16, ["T", "8"]> {npu.input = "x"}, %w: tensor<6x8xbf16> {npu.param = "w"}, %b: tensor<6xbf16> {npu.param = "b"}, %r: tensor<?x6xf32, ["T", "6"]> {npu.input = "r"}) {
  %0 = "npu.matmul"(%x, %w, %b, %r) {transpose_w = true, epilogue = ["bias", "gelu", "residual"], operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>} : (tensor<?x8xbf16, ["T", "8"]>, tensor<6x8xbf16>, tensor<6xbf16>, tensor<?x6xf32, ["T", "6"]>) -> tensor<?x6xf32, ["T", "6"]>
  %1 = "npu.matmul"(%x, %w) {transpose_w = true, epilogue = ["gate_silu"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<?x8xbf16, ["T", "8"]>, tensor<6x8xbf16>) -> tensor<?x3xbf16, ["T", "3"]>
  return
}

// CHECK-LABEL: func @movement(
// CHECK: npu.reshape %x : f32[4*T, 2]
// CHECK: npu.transpose %x {perm = [1, 0]} : f32[8, T]
// CHECK: npu.broadcast %x : f32[B, T, 8]
// CHECK: npu.slice %x {dim = 1, offset = 1, stride = 3} : f32[T, 2]
// CHECK: npu.concat %x, %x {dim = 0} : f32[2*T, 8]
// CHECK: npu.gather %x, %i : f32[B, 8]
// CHECK: npu.take %x, %j : f32[T, 3]
func.func @movement(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %i: tensor<?xi64, ["B"]> {npu.input = "i"}, %j: tensor<?x3xi32, ["T", "3"]> {npu.input = "j"}) {
  %0 = "npu.reshape"(%x) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x2xf32, ["4*T", "2"]>
  %1 = "npu.transpose"(%x) {perm = [1, 0]} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<8x?xf32, ["8", "T"]>
  %2 = "npu.broadcast"(%x) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x?x8xf32, ["B", "T", "8"]>
  %3 = "npu.slice"(%x) {dim = 1, offset = 1, stride = 3} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x2xf32, ["T", "2"]>
  %4 = "npu.concat"(%x, %x) {dim = 0, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["2*T", "8"]>
  %5 = "npu.gather"(%x, %i) : (tensor<?x8xf32, ["T", "8"]>, tensor<?xi64, ["B"]>) -> tensor<?x8xf32, ["B", "8"]>
  %6 = "npu.take"(%x, %j) : (tensor<?x8xf32, ["T", "8"]>, tensor<?x3xi32, ["T", "3"]>) -> tensor<?x3xf32, ["T", "3"]>
  return
}

// CHECK-LABEL: func @attention(
// CHECK: %[[Q:.*]] = npu.rope_kv_write %qkv, %p, %cache, %s {head_dim = 16, heads = 4, kv_heads = 2, layer = 0, neox, v_head_dim = 16} : bf16[T, 64]
// CHECK: npu.rope %[[Q]], %p, %cache {head_dim = 16, neox} : bf16[T, 64]
// CHECK: npu.paged_attention %[[Q]], %t, %n, %b {{.*}} : bf16[T, 64]
// CHECK: %{{.*}} = npu.repeat %[[Q]] {count = 2, params = {{\[\[}}a.w, b.w]]} : bf16[T, 64] {
// CHECK-NEXT: ^(%[[LAYER:.*]] : i64, %[[X:.*]] : bf16[T, 64], %{{.*}} : bf16[64]):
// CHECK-NEXT: %[[F:.*]] = npu.fused : bf16[T, 64] {
// CHECK-NEXT: %[[E:.*]] = npu.unary %[[X]] {op = silu} : bf16[T, 64]
// CHECK-NEXT: npu.yield %[[E]]
// CHECK: npu.kv_write %
// CHECK: npu.yield %[[F]]
func.func @attention(%qkv: tensor<?x128xbf16, ["T", "128"]> {npu.input = "qkv"}, %k: tensor<?x32xbf16, ["T", "32"]> {npu.input = "k"}, %p: tensor<?xi64, ["T"]> {npu.input = "p"}, %s: tensor<?xi64, ["T"]> {npu.input = "s"}, %t: tensor<?x?xi32, ["B", "P"]> {npu.input = "t"}, %n: tensor<?xi64, ["B"]> {npu.input = "n"}, %b: tensor<?xi64, ["B + 1"]> {npu.input = "b"}, %cache: tensor<128x16xf32> {npu.param = "cache"}) {
  %0 = "npu.rope_kv_write"(%qkv, %p, %cache, %s) {layer = 0, heads = 4, kv_heads = 2, head_dim = 16, v_head_dim = 16, neox = true} : (tensor<?x128xbf16, ["T", "128"]>, tensor<?xi64, ["T"]>, tensor<128x16xf32>, tensor<?xi64, ["T"]>) -> tensor<?x64xbf16, ["T", "64"]>
  %1 = "npu.rope"(%0, %p, %cache) {head_dim = 16, neox = true} : (tensor<?x64xbf16, ["T", "64"]>, tensor<?xi64, ["T"]>, tensor<128x16xf32>) -> tensor<?x64xbf16, ["T", "64"]>
  %2 = "npu.paged_attention"(%0, %t, %n, %b) {layer = 0, heads = 4, kv_heads = 2, head_dim = 16, v_head_dim = 16, scale = 0.25 : f32, logit_cap = 0.0 : f32, window = 0} : (tensor<?x64xbf16, ["T", "64"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x64xbf16, ["T", "64"]>
  %3 = "npu.repeat"(%0) ({
  ^bb0(%layer: i64, %x: tensor<?x64xbf16, ["T", "64"]>, %w: tensor<64xbf16>):
    %4 = "npu.fused"() ({
      %5 = "npu.unary"(%x) {op = "silu"} : (tensor<?x64xbf16, ["T", "64"]>) -> tensor<?x64xbf16, ["T", "64"]>
      "npu.yield"(%5) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x64xbf16, ["T", "64"]>) -> ()
    }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<?x64xbf16, ["T", "64"]>
    "npu.kv_write"(%k, %k, %s) {layer = 0, kv_heads = 2, head_dim = 16, v_head_dim = 16} : (tensor<?x32xbf16, ["T", "32"]>, tensor<?x32xbf16, ["T", "32"]>, tensor<?xi64, ["T"]>) -> ()
    "npu.yield"(%4) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x64xbf16, ["T", "64"]>) -> ()
  }) {count = 2, params = [["a.w", "b.w"]], operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x64xbf16, ["T", "64"]>) -> tensor<?x64xbf16, ["T", "64"]>
  return
}

// CHECK-LABEL: func @dense_attention(
// CHECK: npu.dense_attention %q, %k, %k, %m {causal, scale = 0.25} : bf16[B, 4, T, 16]
// CHECK: npu.dense_attention %q, %k, %k {scale = 0.25} : bf16[B, 4, T, 16]
// CHECK: npu.varlen_attention %p, %p, %p, %s, %s {logit_cap = 0, scale = 0.25, window = 8} : f32[T, 4, 16]
func.func @dense_attention(%q: tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]> {npu.input = "q"}, %k: tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]> {npu.input = "k"}, %m: tensor<?x4x?x?xi1, ["B", "4", "T", "S"]> {npu.input = "m"}, %p: tensor<?x4x16xf32, ["T", "4", "16"]> {npu.input = "p"}, %s: tensor<?xi64, ["B + 1"]> {npu.input = "s"}) {
  %0 = "npu.dense_attention"(%q, %k, %k, %m) {scale = 0.25 : f32, causal = true, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x4x?x?xi1, ["B", "4", "T", "S"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  %1 = "npu.dense_attention"(%q, %k, %k) {scale = 0.25 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 0>} : (tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>, tensor<?x2x?x16xbf16, ["B", "2", "S", "16"]>) -> tensor<?x4x?x16xbf16, ["B", "4", "T", "16"]>
  %2 = "npu.varlen_attention"(%p, %p, %p, %s, %s) {scale = 0.25 : f32, logit_cap = 0.0 : f32, causal = false, window = 8} : (tensor<?x4x16xf32, ["T", "4", "16"]>, tensor<?x4x16xf32, ["T", "4", "16"]>, tensor<?x4x16xf32, ["T", "4", "16"]>, tensor<?xi64, ["B + 1"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x4x16xf32, ["T", "4", "16"]>
  return
}

// CHECK-LABEL: func @debug(
// CHECK: npu.capture %x {layer = 2, output = hidden}
func.func @debug(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}) {
  "npu.capture"(%x) {output = "hidden", layer = 2 : i64} : (tensor<?x8xf32, ["T", "8"]>) -> ()
  return
}
