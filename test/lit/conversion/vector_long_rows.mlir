// RUN: npu-opt %s --convert-npu-to-tile | FileCheck %s

// A row that does not fit in scratchpad: the maximum, the sum of exponentials, the quotients.
// CHECK: "npu_tile.kernel"
// CHECK: "npu_tile.v_fill"{{.*}}value = 0xFF800000 : f32
// CHECK: scf.for
// CHECK: "npu_tile.v_reduce"{{.*}}op = "max"
// CHECK: "npu_tile.v_binary"{{.*}}op = "max"
// CHECK: "npu_tile.kernel"
// CHECK: "npu_tile.v_unary"{{.*}}op = "exp"
// CHECK: "npu_tile.v_reduce"{{.*}}op = "sum"
// CHECK: "npu_tile.v_binary"{{.*}}op = "add"
// CHECK: "npu_tile.kernel"
// CHECK: "npu_tile.v_unary"{{.*}}op = "exp"
// CHECK-NOT: "npu_tile.v_reduce"
// CHECK: "npu_tile.v_binary"{{.*}}op = "div"
func.func @main(%x: tensor<2x1000000xf32> {npu.input = "x"}) -> tensor<2x1000000xf32> {
  %0 = "npu.softmax"(%x) : (tensor<2x1000000xf32>) -> tensor<2x1000000xf32>
  return %0 : tensor<2x1000000xf32>
}
