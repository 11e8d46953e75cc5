// RUN: npu-opt %s --split-input-file --verify-diagnostics --convert-torch-to-npu -o %t
// RUN: FileCheck %s --input-file=%t --implicit-check-not=torch.
// RUN: not npu-opt %s --split-input-file --pass-pipeline='builtin.module(convert-torch-to-npu,func.func(cse),npu-canonicalize)' -o %t.both --mlir-print-ir-after-all 2>&1 | FileCheck %s --check-prefix=AFTER
// RUN: not npu-opt %s --no-such-pass 2>&1 | FileCheck %s --check-prefix=UNKNOWN
// RUN: not npu-opt %s --pass-pipeline='builtin.module(func.func(npu-canonicalize))' 2>&1 | FileCheck %s --check-prefix=NESTED
// RUN: not npu-opt %s --split-input-file --npu-canonicalize=level=3 2>&1 | FileCheck %s --check-prefix=OPTION
// RUN: npu-opt %s --split-input-file | npu-opt --split-input-file --mlir-print-debuginfo | FileCheck %s --check-prefix=STDIN
// Flags and pipelines, pieces of a file, expected diagnostics, printing after passes, errors.

// CHECK: "npu.unary"(%arg0) {op = "relu"} : (tensor<4xf32>) -> tensor<4xf32>
// AFTER: IR Dump After convert-torch-to-npu //
// AFTER: "npu.unary"
// AFTER: IR Dump After func.func(cse) //
// AFTER: IR Dump After npu-canonicalize //
// UNKNOWN: npu-opt: {{.*}} 'no-such-pass' does not refer to a registered pass or pass pipeline
// NESTED: npu-opt: npu-canonicalize runs on the module and cannot be nested in func.func(…)
// OPTION: error: npu-canonicalize: run() got an unexpected keyword argument 'level'
// STDIN: torch.aten.relu {{.*}} loc(
func.func @main(%x: !torch.vtensor<[4],f32> {npu.input = "x"}) -> !torch.vtensor<[4],f32> {
  %0 = torch.aten.relu %x : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  return %0 : !torch.vtensor<[4],f32>
}

// -----

func.func @main(%x: !torch.vtensor<[4,4],f32> {npu.input = "x"}) -> !torch.vtensor<[],f32> {
  // expected-error@+1 {{operator aten.linalg_det: there is no conversion for it}}
  %0 = torch.aten.linalg_det %x : !torch.vtensor<[4,4],f32> -> !torch.vtensor<[],f32>
  return %0 : !torch.vtensor<[],f32>
}
