// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// A linear layer, and attention over dense keys with grouped heads.

// CHECK: %[[MM:.*]] = npu.matmul %x, %fc.weight {epilogue = [], transpose_w} : bf16[T, 8]
// CHECK: npu.binary %[[MM]], %fc.bias {op = add} : bf16[T, 8]
// CHECK: %[[K1:.*]] = npu.reshape %k : bf16[1, 2, 1, S, 16]
// CHECK: %[[K2:.*]] = npu.broadcast %[[K1]] : bf16[1, 2, 2, S, 16]
// CHECK: %[[K:.*]] = npu.reshape %[[K2]] : bf16[1, 4, S, 16]
// CHECK: %[[S:.*]] = npu.matmul %q, %[[K]] {epilogue = [], transpose_w} : f32[1, 4, S, S]
// CHECK: %[[SCALE:.*]] = npu.constant {value = 0.25} : f32[]
// CHECK: %[[SCALED:.*]] = npu.binary %[[S]], %[[SCALE]] {op = mul}
// CHECK: %[[ROW:.*]] = npu.iota {dim = 0, start = 0, step = 1} : i32[S, 1]
// CHECK: %[[COLUMN:.*]] = npu.iota {dim = 1, start = 0, step = 1} : i32[1, S]
// CHECK: %[[SEEN:.*]] = npu.binary %[[ROW]], %[[COLUMN]] {op = ge} : i1[S, S]
// CHECK: %[[MASKED:.*]] = npu.select %[[SEEN]], %[[SCALED]], %{{.*}} : f32[1, 4, S, S]
// CHECK: %[[P:.*]] = npu.softmax %[[MASKED]]
// CHECK: %[[PB:.*]] = npu.cast %[[P]] : bf16[1, 4, S, S]
// CHECK: npu.matmul %[[PB]], %{{.*}} {epilogue = []} : bf16[1, 4, S, 16]
func.func @main(%x: !torch.vtensor<[?,6],bf16> {npu.input = "x", npu.dims = ["T", "6"]}, %q: !torch.vtensor<[1,4,?,16],bf16> {npu.input = "q", npu.dims = ["1", "4", "S", "16"]}, %k: !torch.vtensor<[1,2,?,16],bf16> {npu.input = "k", npu.dims = ["1", "2", "S", "16"]}, %w: !torch.vtensor<[8,6],bf16> {npu.param = "fc.weight"}, %b: !torch.vtensor<[8],bf16> {npu.param = "fc.bias"}) -> (!torch.vtensor<[?,8],bf16>, !torch.vtensor<[1,4,?,16],bf16>) {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.aten.linear %x, %w, %b : !torch.vtensor<[?,6],bf16>, !torch.vtensor<[8,6],bf16>, !torch.vtensor<[8],bf16> -> !torch.vtensor<[?,8],bf16>
  %1 = torch.aten.scaled_dot_product_attention %q, %k, %k, %none, %zero, %true, %none, %true : !torch.vtensor<[1,4,?,16],bf16>, !torch.vtensor<[1,2,?,16],bf16>, !torch.vtensor<[1,2,?,16],bf16>, !torch.none, !torch.float, !torch.bool, !torch.none, !torch.bool -> !torch.vtensor<[1,4,?,16],bf16>
  return %0, %1 : !torch.vtensor<[?,8],bf16>, !torch.vtensor<[1,4,?,16],bf16>
}
