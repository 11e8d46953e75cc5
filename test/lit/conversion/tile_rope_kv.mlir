// RUN: npu-opt %s --convert-npu-to-tile --cse --split-input-file | FileCheck %s

// The cache's rows are gathered by position; 12 heads of Q and K rotate in place, then Q goes
// to its result, K and V to their slots.

// CHECK: "npu_tile.kernel"
// CHECK: scf.for
// CHECK: %[[X:[0-9]+]] = "npu_tile.alloc"() : () -> memref<{{[0-9]+}}x960xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[X]],
// CHECK: "npu_tile.dma_gather"(%[[CACHE:[0-9]+]], {{.*}}memref<{{[0-9]+}}x64xf32, "spm">
// CHECK: "npu_tile.v_binary"(%[[Y1:[0-9]+]], %{{.*}}, %[[X]], %c0_i64, %[[CACHE]], {{.*}}a_strides = array<i64: 1920, 128, 2>, b_strides = array<i64: 256, 0, 4>, {{.*}}op = "mul"
// CHECK: "npu_tile.v_binary"(%[[T:[0-9]+]], %{{.*}}, %[[X]], %c64_i64, %[[CACHE]], %c128_i64
// CHECK: op = "sub"
// CHECK: "npu_tile.v_unary"(%[[X]], {{.*}}op = "copy"
// CHECK: "npu_tile.v_binary"(%[[X]], {{.*}}op = "add"
// CHECK: "npu_tile.dma_store"(%{{.*}}, %[[X]], %c0_i64
// CHECK: "npu_tile.dma_scatter"(%{{.*}}, %[[X]], %c1152_i64
// CHECK: "npu_tile.dma_scatter"(%{{.*}}, %[[X]], %c1536_i64
// CHECK: kernel = "rope_kv_write"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%qkv: tensor<?x960xbf16, ["T", "960"]> {npu.input = "qkv"}, %p: tensor<?xi64, ["T"]> {npu.input = "positions"}, %cache: tensor<2048x64xf32> {npu.param = "cache"}, %slots: tensor<?xi64, ["T"]> {npu.input = "slots"}) -> tensor<?x576xbf16, ["T", "576"]> {
    %0 = "npu.rope_kv_write"(%qkv, %p, %cache, %slots) {head_dim = 64 : i64, heads = 9 : i64, kv_heads = 3 : i64, layer = 0 : i64, neox = true, v_head_dim = 64 : i64} : (tensor<?x960xbf16, ["T", "960"]>, tensor<?xi64, ["T"]>, tensor<2048x64xf32>, tensor<?xi64, ["T"]>) -> tensor<?x576xbf16, ["T", "576"]>
    return %0 : tensor<?x576xbf16, ["T", "576"]>
  }
}

// -----

// Without neox the pairs lie side by side: every other element.

// CHECK: "npu_tile.v_binary"({{.*}}a_strides = array<i64: 128, 64, 4>
// CHECK: kernel = "rope"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x64xbf16, ["T", "64"]> {npu.input = "x"}, %p: tensor<?xi64, ["T"]> {npu.input = "positions"}, %cache: tensor<2048x16xf32> {npu.param = "cache"}) -> tensor<?x64xbf16, ["T", "64"]> {
    %0 = "npu.rope"(%x, %p, %cache) {head_dim = 32 : i64, neox = false} : (tensor<?x64xbf16, ["T", "64"]>, tensor<?xi64, ["T"]>, tensor<2048x16xf32>) -> tensor<?x64xbf16, ["T", "64"]>
    return %0 : tensor<?x64xbf16, ["T", "64"]>
  }
}

// -----

// CHECK: "npu_tile.dma_load"(%[[K:[0-9]+]], {{.*}}memref<{{[0-9]+}}x2x16xbf16, "spm">
// CHECK: "npu_tile.dma_scatter"(%{{.*}}, %[[K]], {{.*}}index_dtype = "i32"
// CHECK: "npu_tile.dma_load"(%[[V:[0-9]+]], {{.*}}memref<{{[0-9]+}}x2x16xbf16, "spm">
// CHECK: "npu_tile.dma_scatter"(%{{.*}}, %[[V]],
// CHECK: kernel = "kv_write"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%k: tensor<?x32xbf16, ["T", "32"]> {npu.input = "k"}, %v: tensor<?x32xbf16, ["T", "32"]> {npu.input = "v"}, %slots: tensor<?xi32, ["T"]> {npu.input = "slots"}) {
    "npu.kv_write"(%k, %v, %slots) {head_dim = 16 : i64, kv_heads = 2 : i64, layer = 0 : i64, v_head_dim = 16 : i64} : (tensor<?x32xbf16, ["T", "32"]>, tensor<?x32xbf16, ["T", "32"]>, tensor<?xi32, ["T"]>) -> ()
    return
  }
}
