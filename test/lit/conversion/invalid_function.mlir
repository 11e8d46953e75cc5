// RUN: npu-opt %s --split-input-file --convert-torch-to-npu --verify-diagnostics
// Arguments and results that a program cannot have.

// expected-error@unknown {{argument x of type !torch.vtensor<[4],f64>: the dtype f64}}
func.func @main(%x: !torch.vtensor<[4],f64> {npu.input = "x"}) -> !torch.vtensor<[4],f64> {
  return %x : !torch.vtensor<[4],f64>
}

// -----

// expected-error@unknown {{argument 0 of type !torch.int is no tensor}}
func.func @main(%x: !torch.int) -> !torch.int {
  return %x : !torch.int
}

// -----

// expected-error@unknown {{has no npu.dims to name its extents}}
func.func @main(%x: !torch.vtensor<[?],f32> {npu.input = "x"}) -> !torch.vtensor<[?],f32> {
  return %x : !torch.vtensor<[?],f32>
}

// -----

// expected-error@unknown {{result 0 of the model is 4, no tensor}}
func.func @main(%x: !torch.vtensor<[4],f32> {npu.input = "x"}) -> !torch.int {
  %int0 = torch.constant.int 0
  %0 = torch.aten.size.int %x, %int0 : !torch.vtensor<[4],f32>, !torch.int -> !torch.int
  return %0 : !torch.int
}
