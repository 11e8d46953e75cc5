// RUN: npu-opt %s --convert-npu-to-tile | FileCheck %s
// The copy runs where result and operand lie apart; two dimensions are the groups of one list of rows.

// CHECK: arith.cmpi ne
// CHECK: scf.if
// CHECK: "npu_tile.dma_load"
// CHECK: "npu_tile.dma_store"
// CHECK: kernel = "vector", source = "npu.put_rows"
// CHECK: "npu_tile.dma_load"
// CHECK: "npu_tile.dma_scatter"
// CHECK-NOT: "npu_tile.dma_scatter"
// CHECK: kernel = "put_rows"
module attributes {npu.symbols = {P = [1, -1], M = [1, -1]}} {
func.func @main(%x: tensor<?x16x8xbf16, ["P", "16", "8"]> {npu.input = "x"}, %rows: tensor<?xi64, ["M"]> {npu.input = "rows"}, %values: tensor<?x8xbf16, ["M", "8"]> {npu.input = "values"}) -> (tensor<?x16x8xbf16, ["P", "16", "8"]> {npu.output = "y"}) {
  %0 = "npu.put_rows"(%x, %rows, %values) {leading = 2} : (tensor<?x16x8xbf16, ["P", "16", "8"]>, tensor<?xi64, ["M"]>, tensor<?x8xbf16, ["M", "8"]>) -> tensor<?x16x8xbf16, ["P", "16", "8"]>
  return %0 : tensor<?x16x8xbf16, ["P", "16", "8"]>
}
}
