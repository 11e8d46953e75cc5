// RUN: npu-opt %s --npu-fuse-rope-kv | FileCheck %s

// From the projection to the pages, in any order of the rotations.
// CHECK-LABEL: func.func @split_rope_write(
// CHECK-SAME: %[[QKV:[a-z0-9]+]]: {{.*}}, %[[P:[a-z0-9]+]]: {{.*}}, %[[C:[a-z0-9]+]]: {{.*}}, %[[S:[a-z0-9]+]]:
// CHECK-NEXT: %[[Q:.*]] = "npu.rope_kv_write"(%[[QKV]], %[[P]], %[[C]], %[[S]]) {head_dim = 4 : i64, heads = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, neox = true, v_head_dim = 4 : i64}
// CHECK-NEXT: return %[[Q]]
func.func @split_rope_write(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> tensor<?x16xbf16, ["T", "16"]> {
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  %kr = "npu.rope"(%k, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  "npu.kv_write"(%kr, %v, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %qr : tensor<?x16xbf16, ["T", "16"]>
}

// The parts lie in another order.
// CHECK-LABEL: func.func @k_comes_first(
// CHECK-NOT: npu.rope_kv_write
// CHECK: return
func.func @k_comes_first(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> tensor<?x16xbf16, ["T", "16"]> {
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 8 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %kr = "npu.rope"(%k, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  "npu.kv_write"(%kr, %v, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %qr : tensor<?x16xbf16, ["T", "16"]>
}

// The rotated K is needed elsewhere.
// CHECK-LABEL: func.func @other_user_of_k(
// CHECK-NOT: npu.rope_kv_write
// CHECK: return
func.func @other_user_of_k(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> (tensor<?x16xbf16, ["T", "16"]>, tensor<?x8xbf16, ["T", "8"]>) {
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  %kr = "npu.rope"(%k, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  "npu.kv_write"(%kr, %v, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %qr, %kr : tensor<?x16xbf16, ["T", "16"]>, tensor<?x8xbf16, ["T", "8"]>
}

// The projection is needed elsewhere.
// CHECK-LABEL: func.func @other_user_of_qkv(
// CHECK-NOT: npu.rope_kv_write
// CHECK: return
func.func @other_user_of_qkv(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> (tensor<?x16xbf16, ["T", "16"]>, tensor<?x32xbf16, ["T", "32"]>) {
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  %kr = "npu.rope"(%k, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  "npu.kv_write"(%kr, %v, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %qr, %qkv : tensor<?x16xbf16, ["T", "16"]>, tensor<?x32xbf16, ["T", "32"]>
}

// Q and K rotate differently.
// CHECK-LABEL: func.func @different_rotations(
// CHECK-NOT: npu.rope_kv_write
// CHECK: return
func.func @different_rotations(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> tensor<?x16xbf16, ["T", "16"]> {
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = false} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  %kr = "npu.rope"(%k, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  "npu.kv_write"(%kr, %v, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %qr : tensor<?x16xbf16, ["T", "16"]>
}

// V is more than a slice.
// CHECK-LABEL: func.func @v_rotates_too(
// CHECK-NOT: npu.rope_kv_write
// CHECK: return
func.func @v_rotates_too(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> tensor<?x16xbf16, ["T", "16"]> {
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  %kr = "npu.rope"(%k, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  %vr = "npu.rope"(%v, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  "npu.kv_write"(%kr, %vr, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %qr : tensor<?x16xbf16, ["T", "16"]>
}

// Something happens to K between split and rotation.
// CHECK-LABEL: func.func @norm_before_rotation(
// CHECK-NOT: npu.rope_kv_write
// CHECK: return
func.func @norm_before_rotation(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> tensor<?x16xbf16, ["T", "16"]> {
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %kn = "npu.unary"(%k) {op = "tanh"} : (tensor<?x8xbf16, ["T", "8"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  %kr = "npu.rope"(%kn, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  "npu.kv_write"(%kr, %v, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %qr : tensor<?x16xbf16, ["T", "16"]>
}

// The rotated Q is needed before the write.
// CHECK-LABEL: func.func @q_before_write(
// CHECK-NOT: npu.rope_kv_write
// CHECK: return
func.func @q_before_write(%qkv: tensor<?x32xbf16, ["T", "32"]>, %p: tensor<?xi64, ["T"]>, %c: tensor<64x4xf32>, %s: tensor<?xi64, ["T"]>) -> tensor<?x16xbf16, ["T", "16"]> {
  %q = "npu.slice"(%qkv) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %k = "npu.slice"(%qkv) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %v = "npu.slice"(%qkv) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %qr = "npu.rope"(%q, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x16xbf16, ["T", "16"]>
  %u = "npu.unary"(%qr) {op = "tanh"} : (tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xbf16, ["T", "16"]>
  %kr = "npu.rope"(%k, %p, %c) {head_dim = 4 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x4xf32>) -> tensor<?x8xbf16, ["T", "8"]>
  "npu.kv_write"(%kr, %v, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  return %u : tensor<?x16xbf16, ["T", "16"]>
}
