// RUN: not npu-opt %s --convert-npu-to-tile 2>&1 | FileCheck %s

// A row that a reduction needs whole must fit; the error says what does not, and what to do.
// CHECK: 'npu.softmax': a row of 1000000 elements (at most 1000000) needs {{[0-9]+}} bytes of scratchpad, the chip has 524288 per core
// CHECK: choose a chip with more scratchpad
func.func @main(%x: tensor<2x1000000xf32> {npu.input = "x"}) -> tensor<2x1000000xf32> {
  %0 = "npu.softmax"(%x) : (tensor<2x1000000xf32>) -> tensor<2x1000000xf32>
  return %0 : tensor<2x1000000xf32>
}
