// RUN: split-file %s %t
// RUN: npu-opt %t/packed.mlir --convert-npu-to-tile --cse | FileCheck %t/packed.mlir
// RUN: npu-opt %t/deep.mlir --convert-npu-to-tile --cse | FileCheck %t/deep.mlir
// RUN: npu-opt %t/gate.mlir --convert-npu-to-tile --cse | FileCheck %t/gate.mlir
// RUN: npu-opt %t/strided.mlir --convert-npu-to-tile --cse | FileCheck %t/strided.mlir
// RUN: npu-opt %t/batched.mlir --convert-npu-to-tile --cse | FileCheck %t/batched.mlir

// Weights stream by in the order they are stored; the epilogue works on the accumulator, 128 rows at a
// time, and the last step writes the tile of y. 576 = 4.5 tiles of K, 1536 = 12 tiles of N for 2 cores.

//--- packed.mlir
// CHECK: layout\22: \22packed\22{{.*}}\22shape\22: [1536, 576]{{.*}}\22nt\22: 128, \22transpose\22: false, \22gate\22: false
// CHECK: "npu_tile.kernel"
// CHECK: %[[CORE:.*]] = "npu_tile.core"()
// CHECK: scf.for
// CHECK: %[[X:.*]] = "npu_tile.alloc"() : () -> memref<208x576xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[X]],
// CHECK: scf.for
// CHECK: %[[ACC:.*]] = "npu_tile.alloc"() : () -> memref<208x128xf32, "acc">
// CHECK: scf.for %[[K:.*]] = %{{.*}} to %c576_i64{{.*}} step %c128_i64
// CHECK: %[[W:.*]] = "npu_tile.alloc"() {wants = 4 : i64} : () -> memref<16384xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[W]],
// CHECK: "npu_tile.mx_load"(%[[W]], {{.*}} layout = "packed"
// CHECK: "npu_tile.mx_mul"(%[[ACC]], {{.*}}, %[[X]], {{.*}}, %[[K]]) {dst_stride = 512 : i64, src_stride = 1152 : i64}
// CHECK: scf.for %{{.*}} = %{{.*}} to %{{.*}} step %c128_i64
// CHECK: %[[BIAS:.*]] = "npu_tile.alloc"() : () -> memref<128xbf16, "spm">
// CHECK: %[[RESIDUAL:.*]] = "npu_tile.alloc"() : () -> memref<128x128xbf16, "spm">
// CHECK: %[[Y:.*]] = "npu_tile.alloc"() : () -> memref<128x128xbf16, "spm">
// CHECK: "npu_tile.v_binary"(%[[ACC]], {{.*}}, %[[ACC]], {{.*}}, %[[BIAS]], {{.*}}b_strides = array<i64: 0, 0, 2>{{.*}}op = "add"
// CHECK: "npu_tile.v_unary"(%[[ACC]], {{.*}}op = "gelu"
// CHECK: "npu_tile.v_binary"(%[[Y]], {{.*}}, %[[ACC]], {{.*}}, %[[RESIDUAL]], {{.*}}op = "add"
// CHECK: "npu_tile.dma_store"(%{{.*}}, %[[Y]],
// CHECK: {kernel = "matmul_packed", source = "npu.matmul"}
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x576xbf16, ["T", "576"]> {npu.input = "x"}, %w: tensor<1536x576xbf16> {npu.param = "w"}, %b: tensor<1536xbf16> {npu.param = "b"}, %r: tensor<?x1536xbf16, ["T", "1536"]> {npu.input = "r"}) -> tensor<?x1536xbf16, ["T", "1536"]> {
    %0 = "npu.matmul"(%x, %w, %b, %r) {epilogue = ["bias", "gelu", "residual"], operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>, transpose_w = true} : (tensor<?x576xbf16, ["T", "576"]>, tensor<1536x576xbf16>, tensor<1536xbf16>, tensor<?x1536xbf16, ["T", "1536"]>) -> tensor<?x1536xbf16, ["T", "1536"]>
    return %0 : tensor<?x1536xbf16, ["T", "1536"]>
  }
}

// Too deep for many rows of x to stay: sums in scratchpad while K passes, 256 of it at a time; the
// first is copied, the last followed by the epilogue.

//--- deep.mlir
// CHECK: %[[SUMS:.*]] = "npu_tile.alloc"() : () -> memref<3x160x96xf32, "spm">
// CHECK: scf.for %[[AT:.*]] = %c0_i64{{.*}} to %c1536_i64 step %c256_i64
// CHECK: %[[X:.*]] = "npu_tile.alloc"() {wants = 2 : i64} : () -> memref<160x256xbf16, "spm">
// CHECK: scf.for
// CHECK: %[[ACC:.*]] = "npu_tile.alloc"() : () -> memref<160x96xf32, "acc">
// CHECK: scf.for %[[K:.*]] = %c0_i64{{.*}} to %{{.*}} step %c128_i64
// CHECK: %[[W:.*]] = "npu_tile.alloc"() {wants = 5 : i64} : () -> memref<12288xbf16, "spm">
// CHECK: "npu_tile.mx_load"(%[[W]], {{.*}} layout = "packed"
// CHECK: "npu_tile.mx_mul"(%[[ACC]], {{.*}}, %[[X]], {{.*}}, %[[K]])
// CHECK: %[[FIRST:.*]] = arith.cmpi eq, %[[AT]], %c0_i64
// CHECK: scf.if %[[FIRST]]
// CHECK: "npu_tile.v_unary"(%[[SUMS]], {{.*}}, %[[ACC]], {{.*}}op = "copy"
// CHECK: "npu_tile.v_binary"(%[[SUMS]], {{.*}}, %[[SUMS]], {{.*}}, %[[ACC]], {{.*}}op = "add"
// CHECK: %[[LAST:.*]] = arith.cmpi eq, %{{.*}}, %c1536_i64
// CHECK: scf.if %[[LAST]]
// CHECK: "npu_tile.v_unary"(%[[Y:.*]], {{.*}}, %[[SUMS]], {{.*}}op = "copy"
// CHECK: "npu_tile.dma_store"(%{{.*}}, %[[Y]],
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x1536xbf16, ["T", "1536"]> {npu.input = "x"}, %w: tensor<576x1536xbf16> {npu.param = "w"}) -> tensor<?x576xbf16, ["T", "576"]> {
    %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x1536xbf16, ["T", "1536"]>, tensor<576x1536xbf16>) -> tensor<?x576xbf16, ["T", "576"]>
    return %0 : tensor<?x576xbf16, ["T", "576"]>
  }
}

// Half of a column tile are columns of the gate, half those that it gates; the greatest T bounds the
// rows of a block.

//--- gate.mlir
// CHECK: \22nt\22: 128, \22transpose\22: false, \22gate\22: true
// CHECK: %[[ACC:.*]] = "npu_tile.alloc"() : () -> memref<8x128xf32, "acc">
// CHECK: "npu_tile.mx_mul"(%[[ACC]],
// CHECK: %[[Y:.*]] = "npu_tile.alloc"() : () -> memref<8x64xf32, "spm">
// CHECK: "npu_tile.v_unary"(%[[ACC]], %c0_i64{{.*}}op = "silu"
// CHECK: "npu_tile.v_binary"(%[[Y]], %{{.*}}, %[[ACC]], %c0_i64{{[_0-9]*}}, %[[ACC]], %c256_i64{{.*}}op = "mul"
module attributes {npu.symbols = {T = [1, 8]}} {
  func.func @main(%x: tensor<?x64xf32, ["T", "64"]> {npu.input = "x"}, %w: tensor<256x64xf32> {npu.param = "w"}) -> tensor<?x128xf32, ["T", "128"]> {
    %0 = "npu.matmul"(%x, %w) {epilogue = ["gate_silu"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x64xf32, ["T", "64"]>, tensor<256x64xf32>) -> tensor<?x128xf32, ["T", "128"]>
    return %0 : tensor<?x128xf32, ["T", "128"]>
  }
}

// One row, a weight given at launch: the two cores share its 32 column tiles; a DMA brings 128 rows
// of N by 256 of K, two stationary tiles.

//--- strided.mlir
// CHECK: "npu_tile.core"
// CHECK: "npu_tile.dma_load"
// CHECK: scf.for %{{.*}} = %{{.*}} to %{{.*}} step %c1_i64
// CHECK: scf.for %{{.*}} = %c0_i64{{.*}} to %c4096_i64 step %c256_i64
// CHECK: %[[W:.*]] = "npu_tile.alloc"() : () -> memref<128x256xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[W]],
// CHECK: scf.for %{{.*}} = %c0_i64{{.*}} to %{{.*}} step %c128_i64
// CHECK: "npu_tile.mx_load"(%[[W]], {{.*}} layout = "nk"
// CHECK: kernel = "matmul_strided"
module {
  func.func @main(%x: tensor<1x4096xbf16> {npu.input = "x"}, %w: tensor<4096x4096xbf16> {npu.input = "w"}) -> tensor<1x4096xbf16> {
    %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<1x4096xbf16>, tensor<4096x4096xbf16>) -> tensor<1x4096xbf16>
    return %0 : tensor<1x4096xbf16>
  }
}

// Transposes are views: batch × blocks of rows are dealt to the cores, keys load by rows
// and turn in the matrix unit. Nothing is copied.

//--- batched.mlir
// CHECK-COUNT-1: "npu_tile.kernel"
// CHECK-NOT: "npu_tile.kernel"
// CHECK: scf.for
// CHECK: %[[X:.*]] = "npu_tile.alloc"() : () -> memref<{{[0-9]+}}x64xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[X]],
// CHECK: scf.for
// CHECK: scf.for %[[K:.*]] = %
// CHECK: %[[W:.*]] = "npu_tile.alloc"() : () -> memref<128x128xbf16, "spm">
// CHECK: "npu_tile.dma_load"(%[[W]],
// CHECK: "npu_tile.mx_load"(%[[W]], {{.*}} layout = "nk"
// CHECK: "npu_tile.mx_mul"
// CHECK: "npu_tile.v_unary"(%{{.*}}op = "copy"
// CHECK: "npu_tile.dma_store"
module attributes {npu.symbols = {B = [1, 64], S = [1, 4096]}} {
  func.func @main(%x: tensor<?x?x12x64xbf16, ["B", "S", "12", "64"]> {npu.input = "x"}, %y: tensor<?x?x12x64xbf16, ["B", "S", "12", "64"]> {npu.input = "y"}) -> tensor<?x12x?x?xf32, ["B", "12", "S", "S"]> {
    %0 = "npu.transpose"(%x) {perm = [0, 2, 1, 3]} : (tensor<?x?x12x64xbf16, ["B", "S", "12", "64"]>) -> tensor<?x12x?x64xbf16, ["B", "12", "S", "64"]>
    %1 = "npu.transpose"(%y) {perm = [0, 2, 1, 3]} : (tensor<?x?x12x64xbf16, ["B", "S", "12", "64"]>) -> tensor<?x12x?x64xbf16, ["B", "12", "S", "64"]>
    %2 = "npu.matmul"(%0, %1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x12x?x64xbf16, ["B", "12", "S", "64"]>, tensor<?x12x?x64xbf16, ["B", "12", "S", "64"]>) -> tensor<?x12x?x?xf32, ["B", "12", "S", "S"]>
    return %2 : tensor<?x12x?x?xf32, ["B", "12", "S", "S"]>
  }
}
