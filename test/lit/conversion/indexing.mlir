// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// Rows of a table, rows by an index of another tensor (which may count from the end), elements along a dimension.

// CHECK: %[[E:.*]] = npu.gather %table, %ids : f32[T, 6]
// CHECK: %[[T:.*]] = npu.extent {value = T} : i64[]
// CHECK: %[[BEHIND:.*]] = npu.binary %last, %[[T]] {op = add} : i64[B]
// CHECK: %[[NEGATIVE:.*]] = npu.binary %last, %{{.*}} {op = lt} : i1[B]
// CHECK: %[[FRONT:.*]] = npu.select %[[NEGATIVE]], %[[BEHIND]], %last : i64[B]
// CHECK: npu.gather %[[E]], %[[FRONT]] : f32[B, 6]
// CHECK: %[[I:.*]] = npu.reshape %ids : i64[T, 1]
// CHECK: %[[W:.*]] = npu.broadcast %[[I]] : i64[T, 6]
// CHECK: %[[X:.*]] = npu.transpose %[[E]] {perm = [1, 0]} : f32[6, T]
// CHECK: %[[J:.*]] = npu.transpose %[[W]] {perm = [1, 0]} : i64[6, T]
// CHECK: %[[Y:.*]] = npu.take %[[X]], %[[J]] : f32[6, T]
// CHECK: npu.transpose %[[Y]] {perm = [1, 0]} : f32[T, 6]
func.func @main(%ids: !torch.vtensor<[?],si64> {npu.input = "ids", npu.dims = ["T"]}, %last: !torch.vtensor<[?],si64> {npu.input = "last", npu.dims = ["B"]}, %table: !torch.vtensor<[32,6],f32> {npu.param = "table"}) -> (!torch.vtensor<[?,6],f32>, !torch.vtensor<[?,6],f32>) {
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %int6 = torch.constant.int 6
  %int-1 = torch.constant.int -1
  %false = torch.constant.bool false
  %0 = torch.aten.embedding %table, %ids, %int-1, %false, %false : !torch.vtensor<[32,6],f32>, !torch.vtensor<[?],si64>, !torch.int, !torch.bool, !torch.bool -> !torch.vtensor<[?,6],f32>
  %index = torch.prim.ListConstruct %last : (!torch.vtensor<[?],si64>) -> !torch.list<optional<vtensor>>
  %1 = torch.aten.index.Tensor %0, %index : !torch.vtensor<[?,6],f32>, !torch.list<optional<vtensor>> -> !torch.vtensor<[?,6],f32>
  %2 = torch.aten.unsqueeze %ids, %int1 : !torch.vtensor<[?],si64>, !torch.int -> !torch.vtensor<[?,1],si64>
  %shape = torch.prim.ListConstruct %int-1, %int6 : (!torch.int, !torch.int) -> !torch.list<int>
  %3 = torch.aten.expand %2, %shape, %false : !torch.vtensor<[?,1],si64>, !torch.list<int>, !torch.bool -> !torch.vtensor<[?,6],si64>
  %4 = torch.aten.gather %0, %int0, %3, %false : !torch.vtensor<[?,6],f32>, !torch.int, !torch.vtensor<[?,6],si64>, !torch.bool -> !torch.vtensor<[?,6],f32>
  return %1, %4 : !torch.vtensor<[?,6],f32>, !torch.vtensor<[?,6],f32>
}
