// RUN: not npu-opt %s --convert-torch-to-npu 2>&1 | FileCheck %s
// All operators that cannot be converted are reported in one run; what depends on them is not.

// CHECK: error: operator aten.cumprod: there is no conversion for it
// CHECK-NEXT: at model.positions (model.py:12)
// CHECK-NEXT: Rewrite this part of the model
// CHECK: error: operator aten.index.Tensor: an index is a mask
// CHECK: error: operator aten.fft_fft: there is no conversion for it
// CHECK-NOT: error:
func.func @main(%x: !torch.vtensor<[?,8],f32> {npu.input = "x", npu.dims = ["T", "8"]}, %m: !torch.vtensor<[?],i1> {npu.input = "m", npu.dims = ["T"]}) -> !torch.vtensor<[?,8],f32> {
  %none = torch.constant.none
  %int1 = torch.constant.int 1
  %int-1 = torch.constant.int -1
  %0 = torch.aten.cumprod %x, %int1, %none : !torch.vtensor<[?,8],f32>, !torch.int, !torch.none -> !torch.vtensor<[?,8],f32> loc("model.positions"("model.py":12:0))
  %index = torch.prim.ListConstruct %m : (!torch.vtensor<[?],i1>) -> !torch.list<optional<vtensor>>
  %1 = torch.aten.index.Tensor %x, %index : !torch.vtensor<[?,8],f32>, !torch.list<optional<vtensor>> -> !torch.vtensor<[?,8],f32>
  %2 = torch.aten.relu %0 : !torch.vtensor<[?,8],f32> -> !torch.vtensor<[?,8],f32>
  %3 = torch.aten.fft_fft %x, %none, %int-1, %none : !torch.vtensor<[?,8],f32>, !torch.none, !torch.int, !torch.none -> !torch.vtensor<[?,8],complex<f32>>
  return %2 : !torch.vtensor<[?,8],f32>
}
