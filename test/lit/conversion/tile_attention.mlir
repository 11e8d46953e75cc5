// RUN: npu-opt %s --convert-npu-to-tile --cse | FileCheck %s

// Loops over sequences and over the items of this core: those of one block of 28 tokens × 3 query heads, then
// those of two. Keys are gathered page by page and turned, values are stationary as they lie.

// CHECK: \22kv\22: {\22layers\22: 3, \22kv_heads\22: 3, \22head_dim\22: 64, \22v_head_dim\22: 64, \22dtype\22: \22bf16\22}
// CHECK: "npu_tile.kernel"
// CHECK-COUNT-2: "npu_tile.alloc"() : () -> memref<84x128xf32, "acc">
// CHECK: %[[O:.*]] = "npu_tile.alloc"() : () -> memref<84x64xf32, "acc">
// CHECK: scf.for
// CHECK-COUNT-3: "npu_tile.load_scalar"(%{{.*}}) {dtype = "i32"}

// One block: the scores of the first 128 keys, then in turn those of the next keys and the softmax and the sums of
// the ones before.

// CHECK: scf.for
// CHECK: %[[M:.*]] = "npu_tile.alloc"() : () -> memref<84xf32, "spm">
// CHECK: %[[L:.*]] = "npu_tile.alloc"() : () -> memref<84xf32, "spm">
// CHECK: %[[ALPHA:.*]] = "npu_tile.alloc"() : () -> memref<84xf32, "spm">
// CHECK: %[[Q:.*]] = "npu_tile.alloc"() : () -> memref<84x64xbf16, "spm">
// CHECK: %[[P:.*]] = "npu_tile.alloc"() : () -> memref<84x128xbf16, "spm">
// CHECK: "npu_tile.v_fill"(%[[M]], {{.*}}value = 0xFF800000 : f32
// CHECK: "npu_tile.dma_load"(%[[Q]],
// CHECK: %[[K:.*]] = "npu_tile.alloc"() : () -> memref<128x64xbf16, "spm">
// CHECK: "npu_tile.dma_gather"(%[[K]], {{.*}}index_dtype = "i32"
// CHECK: "npu_tile.mx_load"(%[[K]], {{.*}}layout = "nk"
// CHECK: "npu_tile.mx_mul"(%[[S:[^,]*]], %{{.*}}, %[[Q]],
// CHECK: scf.for %[[KEY:.*]] = %{{.*}} step %c256_i64
// CHECK: "npu_tile.v_softmax_step"(%[[P]], %{{.*}}, %[[S]], %{{.*}}, %[[M]], %{{.*}}, %[[L]], %{{.*}}, %[[ALPHA]], {{.*}}%[[KEY]]) {cap = 0.000000e+00 : f32, causal = 1 : i64, group = 3 : i64, {{.*}}scale = 1.250000e-01 : f32, window = 0 : i64}
// CHECK: "npu_tile.v_binary"(%[[O]], %{{.*}}, %[[O]], %{{.*}}, %[[ALPHA]], {{.*}}b_strides = array<i64: 0, 4, 0>{{.*}}op = "mul"
// CHECK: "npu_tile.dma_gather"(%[[K:[^,]*]],
// CHECK: "npu_tile.mx_load"(%[[K]], {{.*}}layout = "nk"
// CHECK: "npu_tile.mx_mul"(%[[S2:[^,]*]], %{{.*}}, %[[Q]],
// CHECK: %[[V:.*]] = "npu_tile.alloc"() : () -> memref<128x64xbf16, "spm">
// CHECK: "npu_tile.dma_gather"(%[[V]],
// CHECK: "npu_tile.mx_load"(%[[V]], {{.*}}layout = "kn"
// CHECK: "npu_tile.mx_mul"(%[[O]], %{{.*}}, %[[P]],
// CHECK: "npu_tile.v_softmax_step"(%{{[^,]*}}, %{{.*}}, %[[S2]],
// CHECK: "npu_tile.mx_mul"(%[[S]], %{{.*}}, %[[Q]],
// CHECK: "npu_tile.v_unary"(%[[L]], %{{.*}}, %[[L]], {{.*}}op = "recip"
// CHECK: "npu_tile.v_binary"(%[[OUT:.*]], %{{.*}}, %[[O]], %{{.*}}, %[[L]], {{.*}}op = "mul"
// CHECK: "npu_tile.dma_store"(%{{.*}}, %[[OUT]],

// Two blocks: the values of the block of keys before, the queries in the first round, the division in the last.

// CHECK: scf.for
// CHECK: scf.for %[[KEY:.*]] = %{{.*}} step %c128_i64
// CHECK: "npu_tile.dma_gather"(%[[K:[^,]*]],
// CHECK-COUNT-2: {npu_tile.first}
// CHECK: "npu_tile.dma_gather"(%[[V:[^,]*]],
// CHECK: "npu_tile.mx_load"(%[[V]], {{.*}}layout = "kn"
// CHECK: "npu_tile.mx_load"(%[[K]], {{.*}}layout = "nk"
// CHECK: "npu_tile.v_softmax_step"
// CHECK: op = "recip"
// CHECK: "npu_tile.mx_load"(%[[V]], {{.*}}layout = "kn"
// CHECK: "npu_tile.mx_load"(%[[K]], {{.*}}layout = "nk"
// CHECK: "npu_tile.v_softmax_step"
// CHECK: "npu_tile.dma_store"
module attributes {npu.symbols = {B = [1, 64], P = [1, 64], T = [1, 4096]}} {
  func.func @main(%q: tensor<?x576xbf16, ["T", "576"]> {npu.input = "q"}, %table: tensor<?x?xi32, ["B", "P"]> {npu.input = "block_table"}, %lens: tensor<?xi32, ["B"]> {npu.input = "seq_lens"}, %starts: tensor<?xi32, ["B + 1"]> {npu.input = "q_start"}) -> tensor<?x576xbf16, ["T", "576"]> {
    %0 = "npu.paged_attention"(%q, %table, %lens, %starts) {head_dim = 64 : i64, heads = 9 : i64, kv_heads = 3 : i64, layer = 2 : i64, logit_cap = 0.000000e+00 : f32, scale = 1.250000e-01 : f32, v_head_dim = 64 : i64, window = 0 : i64} : (tensor<?x576xbf16, ["T", "576"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi32, ["B"]>, tensor<?xi32, ["B + 1"]>) -> tensor<?x576xbf16, ["T", "576"]>
    return %0 : tensor<?x576xbf16, ["T", "576"]>
  }
}
