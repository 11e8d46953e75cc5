// RUN: npu-opt %s --convert-npu-to-tile --cse | FileCheck %s

// One kernel, without a tensor of queries × keys in HBM: loops over work items of this core and
// over blocks of 128 keys. What a mask repeats along is loaded once: here one row of keys, i8.

// CHECK: "npu_tile.kernel"
// CHECK: %[[S:.*]] = "npu_tile.alloc"() : () -> memref<85x128xf32, "acc">
// CHECK: scf.for
// CHECK: %[[Q:.*]] = "npu_tile.alloc"() : () -> memref<85x64xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[Q]],
// CHECK: %[[K:.*]] = "npu_tile.alloc"() : () -> memref<128x64xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[K]],
// CHECK: "npu_tile.mx_mul"(%[[S]], %{{.*}}, %[[Q]],
// CHECK: scf.for %[[KEY:.*]] = %{{.*}} step %c256_i64
// CHECK: %[[MASK:.*]] = "npu_tile.alloc"() : () -> memref<1x1x128xi1, "spm">
// CHECK: "npu_tile.dma_load"(%[[MASK]],
// CHECK: "npu_tile.v_select"(%[[S]], %{{.*}}, %[[MASK]], {{.*}}cond_strides = array<i64: 0, 0, 1>
// CHECK: "npu_tile.v_softmax_step"({{.*}}causal = 0 : i64, group = 1 : i64, {{.*}}scale = 1.250000e-01 : f32
// CHECK: %[[V:.*]] = "npu_tile.alloc"() : () -> memref<128x64xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[V]],
// CHECK-NOT: "npu_tile.kernel"
module attributes {npu.symbols = {B = [1, 64], T = [1, 4096]}} {
  func.func @main(%q: tensor<?x12x?x64xbf16, ["B", "12", "T", "64"]> {npu.input = "q"}, %m: tensor<?x1x1x?xi1, ["B", "1", "1", "T"]> {npu.input = "m"}) -> tensor<?x12x?x64xbf16, ["B", "12", "T", "64"]> {
    %0 = "npu.broadcast"(%m) : (tensor<?x1x1x?xi1, ["B", "1", "1", "T"]>) -> tensor<?x12x?x?xi1, ["B", "12", "T", "T"]>
    %1 = "npu.dense_attention"(%q, %q, %q, %0) {scale = 0.125 : f32, causal = false, operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x12x?x64xbf16, ["B", "12", "T", "64"]>, tensor<?x12x?x64xbf16, ["B", "12", "T", "64"]>, tensor<?x12x?x64xbf16, ["B", "12", "T", "64"]>, tensor<?x12x?x?xi1, ["B", "12", "T", "T"]>) -> tensor<?x12x?x64xbf16, ["B", "12", "T", "64"]>
    return %1 : tensor<?x12x?x64xbf16, ["B", "12", "T", "64"]>
  }
}
