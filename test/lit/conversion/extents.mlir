// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// An integer argument is an extent, in symbols; the function of npu has only tensors.

// CHECK: func @main(%x: f32[4*T, 8]) -> f32[2*T, 16] {
// CHECK: npu.reshape %x : f32[2*T, 16]
func.func @main(%n: !torch.int {npu.extent = "2*T"}, %x: !torch.vtensor<[?,8],f32> {npu.input = "x", npu.dims = ["4*T", "8"]}) -> !torch.vtensor<[?,16],f32> {
  %int16 = torch.constant.int 16
  %shape = torch.prim.ListConstruct %n, %int16 : (!torch.int, !torch.int) -> !torch.list<int>
  %0 = torch.aten.view %x, %shape : !torch.vtensor<[?,8],f32>, !torch.list<int> -> !torch.vtensor<[?,16],f32>
  return %0 : !torch.vtensor<[?,16],f32>
}
