// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// Attention over dense keys: grouped heads, a mask, no heads; over packed sequences.

// CHECK-LABEL: func @dense
// CHECK-NOT: npu.broadcast %k
// CHECK: npu.dense_attention %q, %k, %k {causal, scale = 0.25} : bf16[1, 4, S, 16]
func.func @dense(%q: !torch.vtensor<[1,4,?,16],bf16> {npu.input = "q", npu.dims = ["1", "4", "S", "16"]}, %k: !torch.vtensor<[1,2,?,16],bf16> {npu.input = "k", npu.dims = ["1", "2", "S", "16"]}) -> !torch.vtensor<[1,4,?,16],bf16> {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.aten.scaled_dot_product_attention %q, %k, %k, %none, %zero, %true, %none, %true : !torch.vtensor<[1,4,?,16],bf16>, !torch.vtensor<[1,2,?,16],bf16>, !torch.vtensor<[1,2,?,16],bf16>, !torch.none, !torch.float, !torch.bool, !torch.none, !torch.bool -> !torch.vtensor<[1,4,?,16],bf16>
  return %0 : !torch.vtensor<[1,4,?,16],bf16>
}

// CHECK-LABEL: func @masked
// CHECK: %[[M:.*]] = npu.broadcast %m : i1[1, 4, S, S]
// CHECK: npu.dense_attention %q, %q, %q, %[[M]] {scale = 0.5} : bf16[1, 4, S, 16]
func.func @masked(%q: !torch.vtensor<[1,4,?,16],bf16> {npu.input = "q", npu.dims = ["1", "4", "S", "16"]}, %m: !torch.vtensor<[?],i1> {npu.input = "m", npu.dims = ["S"]}) -> !torch.vtensor<[1,4,?,16],bf16> {
  %false = torch.constant.bool false
  %zero = torch.constant.float 0.000000e+00
  %scale = torch.constant.float 5.000000e-01
  %0 = torch.aten.scaled_dot_product_attention %q, %q, %q, %m, %zero, %false, %scale, %false : !torch.vtensor<[1,4,?,16],bf16>, !torch.vtensor<[1,4,?,16],bf16>, !torch.vtensor<[1,4,?,16],bf16>, !torch.vtensor<[?],i1>, !torch.float, !torch.bool, !torch.float, !torch.bool -> !torch.vtensor<[1,4,?,16],bf16>
  return %0 : !torch.vtensor<[1,4,?,16],bf16>
}

// The first dimension need not be static.
// CHECK-LABEL: func @three_dimensions
// CHECK: npu.dense_attention %{{.*}} {scale = 0.25} : f32[N, 1, S, 16]
func.func @three_dimensions(%q: !torch.vtensor<[?,?,16],f32> {npu.input = "q", npu.dims = ["N", "S", "16"]}) -> !torch.vtensor<[?,?,16],f32> {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.aten.scaled_dot_product_attention %q, %q, %q, %none, %zero, %false, %none, %false : !torch.vtensor<[?,?,16],f32>, !torch.vtensor<[?,?,16],f32>, !torch.vtensor<[?,?,16],f32>, !torch.none, !torch.float, !torch.bool, !torch.none, !torch.bool -> !torch.vtensor<[?,?,16],f32>
  return %0 : !torch.vtensor<[?,?,16],f32>
}

// CHECK-LABEL: func @packed
// CHECK: npu.varlen_attention %q, %k, %k, %qs, %ks {causal, logit_cap = 30, scale = 0.25, window = 128} : bf16[T, 4, 16]
func.func @packed(%q: !torch.vtensor<[?,4,16],bf16> {npu.input = "q", npu.dims = ["T", "4", "16"]}, %k: !torch.vtensor<[?,2,16],bf16> {npu.input = "k", npu.dims = ["S", "2", "16"]}, %qs: !torch.vtensor<[?],si32> {npu.input = "qs", npu.dims = ["B + 1"]}, %ks: !torch.vtensor<[?],si32> {npu.input = "ks", npu.dims = ["B + 1"]}) -> !torch.vtensor<[?,4,16],bf16> {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %left = torch.constant.int 127
  %cap = torch.constant.float 3.000000e+01
  %0 = torch.operator "torch.opennpu.flash_attention"(%q, %k, %k, %qs, %ks, %none, %true, %left, %cap) : (!torch.vtensor<[?,4,16],bf16>, !torch.vtensor<[?,2,16],bf16>, !torch.vtensor<[?,2,16],bf16>, !torch.vtensor<[?],si32>, !torch.vtensor<[?],si32>, !torch.none, !torch.bool, !torch.int, !torch.float) -> !torch.vtensor<[?,4,16],bf16>
  return %0 : !torch.vtensor<[?,4,16],bf16>
}
