// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// Permutations, slices counted from the end, splits and joins.

// CHECK: func @main(%x: f32[T, 4, 6]) -> f32[4, T, 6], f32[T, 2, 6], f32[T, 4, 6]
// CHECK-NEXT: npu.transpose %x {perm = [1, 0, 2]} : f32[4, T, 6]
// CHECK-NEXT: npu.slice %x {dim = 1, offset = 2, stride = 1} : f32[T, 2, 6]
// CHECK-NEXT: %[[A:.*]] = npu.slice %x {dim = 2, offset = 0, stride = 1} : f32[T, 4, 3]
// CHECK-NEXT: %[[B:.*]] = npu.slice %x {dim = 2, offset = 3, stride = 1} : f32[T, 4, 3]
// CHECK-NEXT: npu.concat %[[B]], %[[A]] {dim = 2} : f32[T, 4, 6]
func.func @main(%x: !torch.vtensor<[?,4,6],f32> {npu.input = "x", npu.dims = ["T", "4", "6"]}) -> (!torch.vtensor<[4,?,6],f32>, !torch.vtensor<[?,2,6],f32>, !torch.vtensor<[?,4,6],f32>) {
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %int3 = torch.constant.int 3
  %int-1 = torch.constant.int -1
  %int-2 = torch.constant.int -2
  %end = torch.constant.int 9223372036854775807
  %0 = torch.aten.transpose.int %x, %int0, %int1 : !torch.vtensor<[?,4,6],f32>, !torch.int, !torch.int -> !torch.vtensor<[4,?,6],f32>
  %1 = torch.aten.slice.Tensor %x, %int1, %int-2, %end, %int1 : !torch.vtensor<[?,4,6],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[?,2,6],f32>
  %parts = torch.aten.split.Tensor %x, %int3, %int-1 : !torch.vtensor<[?,4,6],f32>, !torch.int, !torch.int -> !torch.list<vtensor>
  %2:2 = torch.prim.ListUnpack %parts : !torch.list<vtensor> -> !torch.vtensor<[?,4,3],f32>, !torch.vtensor<[?,4,3],f32>
  %both = torch.prim.ListConstruct %2#1, %2#0 : (!torch.vtensor<[?,4,3],f32>, !torch.vtensor<[?,4,3],f32>) -> !torch.list<vtensor>
  %3 = torch.aten.cat %both, %int-1 : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[?,4,6],f32>
  return %0, %1, %3 : !torch.vtensor<[4,?,6],f32>, !torch.vtensor<[?,2,6],f32>, !torch.vtensor<[?,4,6],f32>
}
