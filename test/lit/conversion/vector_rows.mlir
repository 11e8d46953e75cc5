// RUN: npu-opt %s --convert-npu-to-tile --cse --canonicalize | FileCheck %s

// A norm: what all rows share comes before the loop, the core's rows go by in blocks, one
// load and one store a block; the edge is a minimum.
module attributes {npu.symbols = {T = [0, 4096]}} {
  func.func @main(%x: tensor<?x576xbf16, ["T", "576"]> {npu.input = "x"}, %w: tensor<576xbf16> {npu.param = "w"}) -> tensor<?x576xbf16, ["T", "576"]> {
    %0 = "npu.rms_norm"(%x, %w) {eps = 1.0e-5 : f32} : (tensor<?x576xbf16, ["T", "576"]>, tensor<576xbf16>) -> tensor<?x576xbf16, ["T", "576"]>
    return %0 : tensor<?x576xbf16, ["T", "576"]>
  }
}
// CHECK-LABEL: func.func @main
// CHECK:         %[[T:.*]] = "npu_tile.arg"() {index = 2
// CHECK:         "npu_tile.kernel"
// CHECK:           %[[W:.*]] = "npu_tile.alloc"() : () -> memref<576xbf16, "spm">
// CHECK-NEXT:      "npu_tile.dma_load"(%[[W]],
// CHECK:           "npu_tile.v_fill"{{.*}}value = 5.760000e+02 : f32
// CHECK:           "npu_tile.v_fill"{{.*}}value = 9.99999974E-6 : f32
// CHECK:           %[[SHARE:.*]] = arith.ceildivsi %[[T]], %c2_i64
// CHECK:           %[[CORE:.*]] = "npu_tile.core"
// CHECK:           %[[LO:.*]] = arith.muli %[[CORE]], %[[SHARE]]
// CHECK:           %[[END:.*]] = arith.addi %[[LO]], %[[SHARE]]
// CHECK:           %[[HI:.*]] = arith.minsi %[[END]], %[[T]]
// CHECK:           scf.for %[[ROW:.*]] = %[[LO]] to %[[HI]] step %[[BLOCK:.*]] : i64 {
// CHECK:             %[[REST:.*]] = arith.subi %[[HI]], %[[ROW]]
// CHECK:             %[[ROWS:.*]] = arith.minsi %[[REST]], %[[BLOCK]]
// CHECK:             "npu_tile.dma_load"(%[[X:[0-9]+]], %c0_i64,
// CHECK:             "npu_tile.v_reduce"(%[[M:[0-9]+]], %c0_i64, %[[X]], %c0_i64, %c1_i64, %[[ROWS]], %c576_i64) {{.*}}op = "sumsq"
// CHECK:             "npu_tile.v_binary"(%[[M]],{{.*}}, %c1_i64, %c1_i64, %[[ROWS]]) {{.*}}op = "div"
// CHECK:             "npu_tile.v_binary"(%[[M]],{{.*}}op = "add"
// CHECK:             "npu_tile.v_unary"(%[[M]],{{.*}}op = "rsqrt"
// CHECK:             "npu_tile.v_binary"(%[[F:[0-9]+]], %c0_i64, %[[X]], %c0_i64, %[[M]],{{.*}}op = "mul"{{.*}}xf32
// CHECK:             "npu_tile.v_binary"(%[[X]], %c0_i64, %[[F]], %c0_i64, %[[W]],{{.*}}b_strides = array<i64: 0, 0, 2>{{.*}}op = "mul"
// CHECK:             "npu_tile.dma_store"({{.*}}%[[X]],
// CHECK-NOT:         "npu_tile.
