// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// Extents are computed as polynomials; a view's -1 is resolved.

// CHECK: func @main(%x: f32[T, 4, 6]) -> f32[4*T, 6], f32[2*T, 12]
// CHECK-NEXT: npu.reshape %x : f32[4*T, 6]
// CHECK-NEXT: npu.reshape %x : f32[2*T, 12]
// CHECK-NEXT: func.return
func.func @main(%x: !torch.vtensor<[?,4,6],f32> {npu.input = "x", npu.dims = ["T", "4", "6"]}) -> (!torch.vtensor<[?,6],f32>, !torch.vtensor<[?,12],f32>) {
  %int0 = torch.constant.int 0
  %int2 = torch.constant.int 2
  %int4 = torch.constant.int 4
  %int6 = torch.constant.int 6
  %int-1 = torch.constant.int -1
  %size = torch.aten.size.int %x, %int0 : !torch.vtensor<[?,4,6],f32>, !torch.int -> !torch.int
  %rows = torch.aten.mul.int %size, %int4 : !torch.int, !torch.int -> !torch.int
  %shape = torch.prim.ListConstruct %rows, %int6 : (!torch.int, !torch.int) -> !torch.list<int>
  %0 = torch.aten.view %x, %shape : !torch.vtensor<[?,4,6],f32>, !torch.list<int> -> !torch.vtensor<[?,6],f32>
  %half = torch.aten.floordiv.int %rows, %int2 : !torch.int, !torch.int -> !torch.int
  %other = torch.prim.ListConstruct %half, %int-1 : (!torch.int, !torch.int) -> !torch.list<int>
  %1 = torch.aten.view %x, %other : !torch.vtensor<[?,4,6],f32>, !torch.list<int> -> !torch.vtensor<[?,12],f32>
  return %0, %1 : !torch.vtensor<[?,6],f32>, !torch.vtensor<[?,12],f32>
}
