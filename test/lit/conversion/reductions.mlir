// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// Several dimensions of bf16 are reduced in f32; softmax moves its dimension to the end.

// CHECK: %[[WIDE:.*]] = npu.cast %x : f32[T, 4, 6]
// CHECK: %[[ONE:.*]] = npu.reduce %[[WIDE]] {dim = 2, op = mean} : f32[T, 4]
// CHECK: %[[TWO:.*]] = npu.reduce %[[ONE]] {dim = 1, op = mean} : f32[T]
// CHECK: npu.cast %[[TWO]] : bf16[T]
// CHECK: %[[LAST:.*]] = npu.transpose %x {perm = [0, 2, 1]} : bf16[T, 6, 4]
// CHECK: %[[SOFT:.*]] = npu.softmax %[[LAST]] : bf16[T, 6, 4]
// CHECK: npu.transpose %[[SOFT]] {perm = [0, 2, 1]} : bf16[T, 4, 6]
// CHECK: npu.layer_norm %{{.*}}, %w, %b {eps = {{.*}}} : bf16[T, 4, 6]
func.func @main(%x: !torch.vtensor<[?,4,6],bf16> {npu.input = "x", npu.dims = ["T", "4", "6"]}, %w: !torch.vtensor<[6],bf16> {npu.param = "w"}, %b: !torch.vtensor<[6],bf16> {npu.param = "b"}) -> (!torch.vtensor<[?],bf16>, !torch.vtensor<[?,4,6],bf16>) {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %int1 = torch.constant.int 1
  %int-1 = torch.constant.int -1
  %int6 = torch.constant.int 6
  %eps = torch.constant.float 1.000000e-05
  %dims = torch.prim.ListConstruct %int1, %int-1 : (!torch.int, !torch.int) -> !torch.list<int>
  %0 = torch.aten.mean.dim %x, %dims, %false, %none : !torch.vtensor<[?,4,6],bf16>, !torch.list<int>, !torch.bool, !torch.none -> !torch.vtensor<[?],bf16>
  %1 = torch.aten.softmax.int %x, %int1, %none : !torch.vtensor<[?,4,6],bf16>, !torch.int, !torch.none -> !torch.vtensor<[?,4,6],bf16>
  %shape = torch.prim.ListConstruct %int6 : (!torch.int) -> !torch.list<int>
  %2 = torch.aten.layer_norm %1, %shape, %w, %b, %eps, %false : !torch.vtensor<[?,4,6],bf16>, !torch.list<int>, !torch.vtensor<[6],bf16>, !torch.vtensor<[6],bf16>, !torch.float, !torch.bool -> !torch.vtensor<[?,4,6],bf16>
  return %0, %2 : !torch.vtensor<[?],bf16>, !torch.vtensor<[?,4,6],bf16>
}
