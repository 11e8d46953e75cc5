// RUN: npu-opt %s --convert-npu-to-tile --cse | FileCheck %s

// The choices are counted, then placed: ranks within a block are a product with a triangle of ones.
// CHECK: scf.if
// CHECK: "npu_tile.v_binary"{{.*}}op = "eq"
// CHECK: "npu_tile.v_reduce"{{.*}}op = "sum"
// CHECK: "npu_tile.mx_load"{{.*}}layout = "kn"
// CHECK: "npu_tile.mx_mul"
// CHECK: kernel = "sort_experts"

// Rows go to their experts by indirect DMA.
// CHECK: "npu_tile.dma_scatter"
// CHECK: kernel = "scatter_rows"

// There are at most as many groups as rows. Theirs are from its offset to the next; column tiles are dealt to the two cores, packed
// weights [expert][tile][k tile] come in one burst each.
// CHECK: %[[GROUPS:.*]] = arith.minsi %c8_i64
// CHECK: scf.for %{{.*}} = %{{.*}} to %[[GROUPS]]
// CHECK: %[[BOTH:.*]] = "npu_tile.load_scalar"{{.*}}dtype = "i64"
// CHECK: %[[BEGIN:.*]] = arith.remsi %[[BOTH]]
// CHECK: %[[END:.*]] = arith.floordivsi %[[BOTH]]
// CHECK: scf.for %{{.*}} = %[[BEGIN]] to %[[END]]
// CHECK: "npu_tile.load_scalar"{{.*}}dtype = "i32"
// CHECK: scf.for %{{.*}} = %{{.*}} to %c2_i64 step %c2_i64
// CHECK: "npu_tile.mx_load"{{.*}}layout = "packed"
// CHECK: kernel = "grouped_matmul"

// Back, weighted, choice by choice.
// CHECK: "npu_tile.dma_gather"
// CHECK: "npu_tile.v_binary"{{.*}}op = "mul"
// CHECK: "npu_tile.v_binary"{{.*}}op = "add"
// CHECK: kernel = "combine_rows"

// Without parameters the weights come by rows.
// CHECK: "npu_tile.mx_load"{{.*}}layout = "nk"
// CHECK: kernel = "grouped_matmul"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x64xbf16, ["T", "64"]> {npu.input = "x"}, %ids: tensor<?x2xi32, ["T", "2"]> {npu.input = "ids"}, %w: tensor<?x2xf32, ["T", "2"]> {npu.input = "weights"}, %w13: tensor<8x96x64xbf16> {npu.param = "w13"}, %w2: tensor<8x64x48xbf16> {npu.input = "w2"}) -> (tensor<?x64xbf16, ["T", "64"]>, tensor<?x64xbf16, ["2*T", "64"]>) {
    %rows, %matrices, %offsets = "npu.sort_experts"(%ids) {experts = 8} : (tensor<?x2xi32, ["T", "2"]>) -> (tensor<2x?xi32, ["2", "T"]>, tensor<8xi32>, tensor<9xi32>)
    %0 = "npu.scatter_rows"(%x, %rows) : (tensor<?x64xbf16, ["T", "64"]>, tensor<2x?xi32, ["2", "T"]>) -> tensor<?x64xbf16, ["2*T", "64"]>
    %1 = "npu.grouped_matmul"(%0, %w13, %offsets, %matrices) {epilogue = ["gate_silu"], operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x64xbf16, ["2*T", "64"]>, tensor<8x96x64xbf16>, tensor<9xi32>, tensor<8xi32>) -> tensor<?x48xbf16, ["2*T", "48"]>
    %2 = "npu.combine_rows"(%0, %rows, %w) : (tensor<?x64xbf16, ["2*T", "64"]>, tensor<2x?xi32, ["2", "T"]>, tensor<?x2xf32, ["T", "2"]>) -> tensor<?x64xbf16, ["T", "64"]>
    %3 = "npu.grouped_matmul"(%1, %w2, %offsets, %matrices) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x48xbf16, ["2*T", "48"]>, tensor<8x64x48xbf16>, tensor<9xi32>, tensor<8xi32>) -> tensor<?x64xbf16, ["2*T", "64"]>
    return %2, %3 : tensor<?x64xbf16, ["T", "64"]>, tensor<?x64xbf16, ["2*T", "64"]>
  }
}
