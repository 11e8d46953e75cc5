// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// Ranges and constants take their extents from those of the inputs.

// CHECK: npu.iota {dim = 0, start = 0, step = 1} : i64[T]
// CHECK: npu.constant {value = 1.5} : f32[T, 8]
func.func @main(%x: !torch.vtensor<[?,8],f32> {npu.input = "x", npu.dims = ["T", "8"]}) -> (!torch.vtensor<[?],si64>, !torch.vtensor<[?,8],f32>) {
  %none = torch.constant.none
  %int0 = torch.constant.int 0
  %value = torch.constant.float 1.500000e+00
  %size = torch.aten.size.int %x, %int0 : !torch.vtensor<[?,8],f32>, !torch.int -> !torch.int
  %0 = torch.aten.arange %size, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
  %1 = torch.aten.full_like %x, %value, %none, %none, %none, %none, %none : !torch.vtensor<[?,8],f32>, !torch.float, !torch.none, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?,8],f32>
  return %0, %1 : !torch.vtensor<[?],si64>, !torch.vtensor<[?,8],f32>
}
