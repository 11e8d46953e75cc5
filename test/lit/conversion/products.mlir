// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// A linear layer: the bias is added to the product.

// CHECK: %[[MM:.*]] = npu.matmul %x, %fc.weight {epilogue = [], transpose_w} : bf16[T, 8]
// CHECK: npu.binary %[[MM]], %fc.bias {op = add} : bf16[T, 8]
func.func @main(%x: !torch.vtensor<[?,6],bf16> {npu.input = "x", npu.dims = ["T", "6"]}, %w: !torch.vtensor<[8,6],bf16> {npu.param = "fc.weight"}, %b: !torch.vtensor<[8],bf16> {npu.param = "fc.bias"}) -> !torch.vtensor<[?,8],bf16> {
  %0 = torch.aten.linear %x, %w, %b : !torch.vtensor<[?,6],bf16>, !torch.vtensor<[8,6],bf16>, !torch.vtensor<[8],bf16> -> !torch.vtensor<[?,8],bf16>
  return %0 : !torch.vtensor<[?,8],bf16>
}
