// RUN: split-file %s %t
// RUN: npu-opt %t/slots.mlir --convert-npu-to-tile | FileCheck %t/slots.mlir
// RUN: not npu-opt %t/no_main.mlir --convert-npu-to-tile 2>&1 | FileCheck %t/no_main.mlir
// RUN: not npu-opt %t/no_kernel.mlir --convert-npu-to-tile --allow-unregistered-dialect 2>&1 | FileCheck %t/no_kernel.mlir

// Launch arguments in order; the second and the fourth intermediate share a slot, so two
// slots of 512 bytes a token are enough; the last op writes the output itself.

//--- slots.mlir
// CHECK: \22args\22: [{\22kind\22: \22input\22, \22name\22: \22x\22, \22dtype\22: \22bf16\22, \22shape\22: [\22T\22, \22256\22]},
// CHECK-SAME: {\22kind\22: \22output\22, \22name\22: \22y\22,
// CHECK-SAME: {\22kind\22: \22symbol\22, \22name\22: \22T\22}, {\22kind\22: \22weights\22, \22bytes\22: 131072}, {\22kind\22: \22workspace\22, \22bytes\22: \221024*T\22}]
// CHECK-SAME: \22flops\22: \22131072*T\22
// CHECK: func.func @main()
// CHECK-COUNT-5: "npu_tile.arg"
// CHECK-COUNT-4: "npu_tile.kernel"
// CHECK-NOT: "npu_tile.kernel"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x256xbf16, ["T", "256"]> {npu.input = "x"}, %w: tensor<256x256xbf16> {npu.param = "w"}) -> (tensor<?x256xbf16, ["T", "256"]> {npu.output = "y"}) {
    %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x256xbf16, ["T", "256"]>, tensor<256x256xbf16>) -> tensor<?x256xbf16, ["T", "256"]>
    %1 = "npu.matmul"(%0, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x256xbf16, ["T", "256"]>, tensor<256x256xbf16>) -> tensor<?x256xbf16, ["T", "256"]>
    %2 = "npu.matmul"(%1, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x256xbf16, ["T", "256"]>, tensor<256x256xbf16>) -> tensor<?x256xbf16, ["T", "256"]>
    %3 = "npu.matmul"(%2, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x256xbf16, ["T", "256"]>, tensor<256x256xbf16>) -> tensor<?x256xbf16, ["T", "256"]>
    return %3 : tensor<?x256xbf16, ["T", "256"]>
  }
}

//--- no_main.mlir
// CHECK: the module has no function @main
module {
}

//--- no_kernel.mlir
// CHECK: cannot lower 'test.op'
// CHECK-NEXT: at {{.*}}model.head
// CHECK-NEXT: no kernel is written for this op
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "test.op"(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("model.head")
  return %0 : tensor<4xf32>
}
