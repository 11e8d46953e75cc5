// RUN: npu-opt %s --convert-npu-to-tile --cse | FileCheck %s
// Softmax in f32, then k rounds of the greatest one, which is gone afterwards.

// CHECK: "npu_tile.v_unary"{{.*}}op = "exp"
// CHECK: "npu_tile.v_binary"{{.*}}op = "div"
// CHECK: scf.for %{{.*}} = %c0_i64{{.*}} to %c6_i64
// CHECK: "npu_tile.v_reduce"{{.*}}op = "max"
// CHECK: "npu_tile.v_reduce"{{.*}}op = "argmax"
// CHECK: "npu_tile.v_binary"{{.*}}op = "eq"
// CHECK: "npu_tile.v_select"
// CHECK: "npu_tile.v_reduce"{{.*}}op = "sum"
// CHECK: "npu_tile.v_binary"{{.*}}op = "div"
// CHECK: kernel = "topk_softmax"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x64xbf16, ["T", "64"]> {npu.input = "x"}) -> (tensor<?x6xf32, ["T", "6"]>, tensor<?x6xi32, ["T", "6"]>) {
    %0, %1 = "npu.topk_softmax"(%x) {k = 6, renormalize = true} : (tensor<?x64xbf16, ["T", "64"]>) -> (tensor<?x6xf32, ["T", "6"]>, tensor<?x6xi32, ["T", "6"]>)
    return %0, %1 : tensor<?x6xf32, ["T", "6"]>, tensor<?x6xi32, ["T", "6"]>
  }
}
