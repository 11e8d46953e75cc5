// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// Arithmetic with numbers, promotion of dtypes, comparison and selection.

// CHECK: func @main(%x: bf16[T, 8], %n: i64[T, 8]) -> f32[T, 8]
// CHECK: %[[N:.*]] = npu.cast %n : bf16[T, 8]
// CHECK: %[[SUM:.*]] = npu.binary %x, %[[N]] {op = add} : bf16[T, 8]
// CHECK: %[[TWO:.*]] = npu.constant {value = 2} : bf16[]
// CHECK: %[[MUL:.*]] = npu.binary %[[SUM]], %[[TWO]] {op = mul} : bf16[T, 8]
// CHECK: %[[SQUARE:.*]] = npu.unary %[[MUL]] {op = square} : bf16[T, 8]
// CHECK: %[[ACT:.*]] = npu.unary %[[SQUARE]] {op = gelu_tanh} : bf16[T, 8]
// CHECK: %[[ZERO:.*]] = npu.constant {value = 0} : i64[]
// CHECK: %[[MASK:.*]] = npu.binary %n, %[[ZERO]] {op = gt} : i1[T, 8]
// CHECK: %[[INF:.*]] = npu.constant {value = -inf} : bf16[]
// CHECK: %[[FILL:.*]] = npu.select %[[MASK]], %[[INF]], %[[ACT]] : bf16[T, 8]
// CHECK: %[[CAST:.*]] = npu.cast %[[FILL]] : f32[T, 8]
// CHECK: func.return %[[CAST]]
module attributes {npu.symbols = {T = [1, 64]}} {
  func.func @main(%x: !torch.vtensor<[?,8],bf16> {npu.input = "x", npu.dims = ["T", "8"]}, %n: !torch.vtensor<[?,8],si64> {npu.input = "n", npu.dims = ["T", "8"]}) -> !torch.vtensor<[?,8],f32> {
    %int1 = torch.constant.int 1
    %int0 = torch.constant.int 0
    %two = torch.constant.float 2.000000e+00
    %int2 = torch.constant.int 2
    %tanh = torch.constant.str "tanh"
    %inf = torch.constant.float 0xFFF0000000000000
    %false = torch.constant.bool false
    %none = torch.constant.none
    %int6 = torch.constant.int 6
    %0 = torch.aten.add.Tensor %x, %n, %int1 : !torch.vtensor<[?,8],bf16>, !torch.vtensor<[?,8],si64>, !torch.int -> !torch.vtensor<[?,8],bf16>
    %1 = torch.aten.mul.Scalar %0, %two : !torch.vtensor<[?,8],bf16>, !torch.float -> !torch.vtensor<[?,8],bf16>
    %2 = torch.aten.pow.Tensor_Scalar %1, %int2 : !torch.vtensor<[?,8],bf16>, !torch.int -> !torch.vtensor<[?,8],bf16>
    %3 = torch.aten.gelu %2, %tanh : !torch.vtensor<[?,8],bf16>, !torch.str -> !torch.vtensor<[?,8],bf16>
    %4 = torch.aten.gt.Scalar %n, %int0 : !torch.vtensor<[?,8],si64>, !torch.int -> !torch.vtensor<[?,8],i1>
    %5 = torch.aten.masked_fill.Scalar %3, %4, %inf : !torch.vtensor<[?,8],bf16>, !torch.vtensor<[?,8],i1>, !torch.float -> !torch.vtensor<[?,8],bf16>
    %6 = torch.aten.to.dtype %5, %int6, %false, %false, %none : !torch.vtensor<[?,8],bf16>, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[?,8],f32>
    return %6 : !torch.vtensor<[?,8],f32>
  }
}
