// RUN: npu-opt %s --convert-npu-to-tile | FileCheck %s

// An input and an output that do not lie row-major: the kernel reads and writes them where they are; their
// strides are launch arguments.
// CHECK: \22name\22: \22x\22, \22dtype\22: \22f32\22, \22shape\22: [\22T\22, \228\22], \22strides\22: [\221\22, \22x_s1\22]}
// CHECK-SAME: \22name\22: \22y\22, \22dtype\22: \22f32\22, \22shape\22: [\22T\22, \228\22], \22strides\22: [\22y_s0\22, \222\22]}
// CHECK-SAME: {\22kind\22: \22symbol\22, \22name\22: \22x_s1\22}
// CHECK-COUNT-1: "npu_tile.kernel"
// CHECK: "npu_tile.v_unary"{{.*}}op = "exp"
// CHECK-NOT: "npu_tile.kernel"
module attributes {npu.symbols = {T = [1, -1], x_s1 = [1, -1], y_s0 = [1, -1]}} {
  func.func @main(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x", npu.strides = ["1", "x_s1"]}) -> (tensor<?x8xf32, ["T", "8"]> {npu.output = "y", npu.strides = ["y_s0", "2"]}) {
    %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
    return %0 : tensor<?x8xf32, ["T", "8"]>
  }
}
