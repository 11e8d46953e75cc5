// RUN: npu-opt %s --pass-pipeline='builtin.module(npu-fuse-add-norm,npu-fuse-rope-kv,npu-fuse-epilogue,npu-fuse-elementwise,npu-roll-layers)' | FileCheck %s

// A decoder of three layers, written out: one repeat of eight ops between embedding and head.
// CHECK: func.func @main
// CHECK-NOT: npu.param = "layers.1
// CHECK: %[[X:[0-9]+]] = "npu.gather"
// CHECK-NEXT: %[[N:[0-9]+]] = "npu.rms_norm"(%[[X]],
// CHECK-NEXT: %[[R:[0-9]+]]:2 = "npu.repeat"(%[[N]], %[[X]]) ({
// CHECK-NEXT: ^bb0(%{{.*}}: i64, %[[Y:[a-z0-9]+]]: {{.*}}, %[[S:[a-z0-9]+]]: tensor<?x16xbf16, ["T", "16"]>, %{{.*}}: tensor<32x16xbf16>
// CHECK-NEXT: %[[QKV:[0-9]+]] = "npu.matmul"(%[[Y]],
// CHECK-NEXT: %[[Q:[0-9]+]] = "npu.rope_kv_write"(%[[QKV]],
// CHECK-NEXT: %[[A:[0-9]+]] = "npu.paged_attention"(%[[Q]],
// CHECK-NEXT: %[[O:[0-9]+]] = "npu.matmul"(%[[A]],
// CHECK-NEXT: %[[M:[0-9]+]]:2 = "npu.add_rms_norm"(%[[O]], %[[S]],
// CHECK-NEXT: %[[G:[0-9]+]] = "npu.matmul"(%[[M]]#0, {{.*}}epilogue = ["gate_silu"]
// CHECK-NEXT: %[[D:[0-9]+]] = "npu.matmul"(%[[G]],
// CHECK-NEXT: %[[E:[0-9]+]]:2 = "npu.add_rms_norm"(%[[D]], %[[M]]#1,
// CHECK-NEXT: "npu.yield"(%[[E]]#0, %[[E]]#1)
// CHECK-NEXT: }) {count = 3
// CHECK-SAME: ["layers.1.norm1", "layers.2.norm1", "norm"]
// CHECK-NEXT: %[[L:[0-9]+]] = "npu.matmul"(%[[R]]#0,
// CHECK-NEXT: return %[[L]]
module {
  func.func @main(%arg0: tensor<?xi64, ["T"]> {npu.input = "input_ids"}, %arg1: tensor<?xi64, ["T"]> {npu.input = "positions"}, %arg2: tensor<?xi64, ["T"]> {npu.input = "slots"}, %arg3: tensor<?x?xi32, ["B", "P"]> {npu.input = "block_table"}, %arg4: tensor<?xi64, ["B"]> {npu.input = "seq_lens"}, %arg5: tensor<?xi64, ["B + 1"]> {npu.input = "q_start"}, %arg6: tensor<64x8xf32> {npu.param = "rotary.cos_sin_cache"}, %arg7: tensor<50x16xbf16> {npu.param = "embed"}, %arg8: tensor<16xbf16> {npu.param = "layers.0.norm1"}, %arg9: tensor<32x16xbf16> {npu.param = "layers.0.qkv"}, %arg10: tensor<16x16xbf16> {npu.param = "layers.0.o"}, %arg11: tensor<16xbf16> {npu.param = "layers.0.norm2"}, %arg12: tensor<48x16xbf16> {npu.param = "layers.0.gate_up"}, %arg13: tensor<16x24xbf16> {npu.param = "layers.0.down"}, %arg14: tensor<16xbf16> {npu.param = "layers.1.norm1"}, %arg15: tensor<32x16xbf16> {npu.param = "layers.1.qkv"}, %arg16: tensor<16x16xbf16> {npu.param = "layers.1.o"}, %arg17: tensor<16xbf16> {npu.param = "layers.1.norm2"}, %arg18: tensor<48x16xbf16> {npu.param = "layers.1.gate_up"}, %arg19: tensor<16x24xbf16> {npu.param = "layers.1.down"}, %arg20: tensor<16xbf16> {npu.param = "layers.2.norm1"}, %arg21: tensor<32x16xbf16> {npu.param = "layers.2.qkv"}, %arg22: tensor<16x16xbf16> {npu.param = "layers.2.o"}, %arg23: tensor<16xbf16> {npu.param = "layers.2.norm2"}, %arg24: tensor<48x16xbf16> {npu.param = "layers.2.gate_up"}, %arg25: tensor<16x24xbf16> {npu.param = "layers.2.down"}, %arg26: tensor<16xbf16> {npu.param = "norm"}, %arg27: tensor<50x16xbf16> {npu.param = "head"}) -> tensor<?x50xbf16, ["T", "50"]> {
    %0 = "npu.gather"(%arg7, %arg0) : (tensor<50x16xbf16>, tensor<?xi64, ["T"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %1 = "npu.rms_norm"(%0, %arg8) {eps = 9.99999974E-6 : f32} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %2 = "npu.matmul"(%1, %arg9) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<32x16xbf16>) -> tensor<?x32xbf16, ["T", "32"]>
    %3 = "npu.slice"(%2) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %4 = "npu.slice"(%2) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
    %5 = "npu.slice"(%2) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
    %6 = "npu.rope"(%3, %arg1, %arg6) {head_dim = 8 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x8xf32>) -> tensor<?x16xbf16, ["T", "16"]>
    %7 = "npu.rope"(%4, %arg1, %arg6) {head_dim = 8 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x8xf32>) -> tensor<?x8xbf16, ["T", "8"]>
    "npu.kv_write"(%7, %5, %arg2) {head_dim = 8 : i64, kv_heads = 1 : i64, layer = 0 : i64, v_head_dim = 8 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
    %8 = "npu.paged_attention"(%6, %arg3, %arg4, %arg5) {head_dim = 8 : i64, heads = 2 : i64, kv_heads = 1 : i64, layer = 0 : i64, logit_cap = 0.000000e+00 : f32, scale = 0.353553385 : f32, v_head_dim = 8 : i64, window = 0 : i64} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %9 = "npu.matmul"(%8, %arg10) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16x16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %10 = "npu.binary"(%9, %0) {op = "add"} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %11 = "npu.rms_norm"(%10, %arg11) {eps = 9.99999974E-6 : f32} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %12 = "npu.matmul"(%11, %arg12) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<48x16xbf16>) -> tensor<?x48xbf16, ["T", "48"]>
    %13 = "npu.slice"(%12) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x48xbf16, ["T", "48"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %14 = "npu.unary"(%13) {op = "silu"} : (tensor<?x24xbf16, ["T", "24"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %15 = "npu.slice"(%12) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x48xbf16, ["T", "48"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %16 = "npu.binary"(%14, %15) {op = "mul"} : (tensor<?x24xbf16, ["T", "24"]>, tensor<?x24xbf16, ["T", "24"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %17 = "npu.matmul"(%16, %arg13) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x24xbf16, ["T", "24"]>, tensor<16x24xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %18 = "npu.binary"(%17, %10) {op = "add"} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %19 = "npu.rms_norm"(%18, %arg14) {eps = 9.99999974E-6 : f32} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %20 = "npu.matmul"(%19, %arg15) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<32x16xbf16>) -> tensor<?x32xbf16, ["T", "32"]>
    %21 = "npu.slice"(%20) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %22 = "npu.slice"(%20) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
    %23 = "npu.slice"(%20) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
    %24 = "npu.rope"(%21, %arg1, %arg6) {head_dim = 8 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x8xf32>) -> tensor<?x16xbf16, ["T", "16"]>
    %25 = "npu.rope"(%22, %arg1, %arg6) {head_dim = 8 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x8xf32>) -> tensor<?x8xbf16, ["T", "8"]>
    "npu.kv_write"(%25, %23, %arg2) {head_dim = 8 : i64, kv_heads = 1 : i64, layer = 1 : i64, v_head_dim = 8 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
    %26 = "npu.paged_attention"(%24, %arg3, %arg4, %arg5) {head_dim = 8 : i64, heads = 2 : i64, kv_heads = 1 : i64, layer = 1 : i64, logit_cap = 0.000000e+00 : f32, scale = 0.353553385 : f32, v_head_dim = 8 : i64, window = 0 : i64} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %27 = "npu.matmul"(%26, %arg16) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16x16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %28 = "npu.binary"(%27, %18) {op = "add"} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %29 = "npu.rms_norm"(%28, %arg17) {eps = 9.99999974E-6 : f32} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %30 = "npu.matmul"(%29, %arg18) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<48x16xbf16>) -> tensor<?x48xbf16, ["T", "48"]>
    %31 = "npu.slice"(%30) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x48xbf16, ["T", "48"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %32 = "npu.unary"(%31) {op = "silu"} : (tensor<?x24xbf16, ["T", "24"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %33 = "npu.slice"(%30) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x48xbf16, ["T", "48"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %34 = "npu.binary"(%32, %33) {op = "mul"} : (tensor<?x24xbf16, ["T", "24"]>, tensor<?x24xbf16, ["T", "24"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %35 = "npu.matmul"(%34, %arg19) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x24xbf16, ["T", "24"]>, tensor<16x24xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %36 = "npu.binary"(%35, %28) {op = "add"} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %37 = "npu.rms_norm"(%36, %arg20) {eps = 9.99999974E-6 : f32} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %38 = "npu.matmul"(%37, %arg21) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<32x16xbf16>) -> tensor<?x32xbf16, ["T", "32"]>
    %39 = "npu.slice"(%38) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %40 = "npu.slice"(%38) {dim = 1 : i64, offset = 16 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
    %41 = "npu.slice"(%38) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x32xbf16, ["T", "32"]>) -> tensor<?x8xbf16, ["T", "8"]>
    %42 = "npu.rope"(%39, %arg1, %arg6) {head_dim = 8 : i64, neox = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?xi64, ["T"]>, tensor<64x8xf32>) -> tensor<?x16xbf16, ["T", "16"]>
    %43 = "npu.rope"(%40, %arg1, %arg6) {head_dim = 8 : i64, neox = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>, tensor<64x8xf32>) -> tensor<?x8xbf16, ["T", "8"]>
    "npu.kv_write"(%43, %41, %arg2) {head_dim = 8 : i64, kv_heads = 1 : i64, layer = 2 : i64, v_head_dim = 8 : i64} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
    %44 = "npu.paged_attention"(%42, %arg3, %arg4, %arg5) {head_dim = 8 : i64, heads = 2 : i64, kv_heads = 1 : i64, layer = 2 : i64, logit_cap = 0.000000e+00 : f32, scale = 0.353553385 : f32, v_head_dim = 8 : i64, window = 0 : i64} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %45 = "npu.matmul"(%44, %arg22) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16x16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %46 = "npu.binary"(%45, %36) {op = "add"} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %47 = "npu.rms_norm"(%46, %arg23) {eps = 9.99999974E-6 : f32} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %48 = "npu.matmul"(%47, %arg24) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<48x16xbf16>) -> tensor<?x48xbf16, ["T", "48"]>
    %49 = "npu.slice"(%48) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x48xbf16, ["T", "48"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %50 = "npu.unary"(%49) {op = "silu"} : (tensor<?x24xbf16, ["T", "24"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %51 = "npu.slice"(%48) {dim = 1 : i64, offset = 24 : i64, stride = 1 : i64} : (tensor<?x48xbf16, ["T", "48"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %52 = "npu.binary"(%50, %51) {op = "mul"} : (tensor<?x24xbf16, ["T", "24"]>, tensor<?x24xbf16, ["T", "24"]>) -> tensor<?x24xbf16, ["T", "24"]>
    %53 = "npu.matmul"(%52, %arg25) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x24xbf16, ["T", "24"]>, tensor<16x24xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %54 = "npu.binary"(%53, %46) {op = "add"} : (tensor<?x16xbf16, ["T", "16"]>, tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xbf16, ["T", "16"]>
    %55 = "npu.rms_norm"(%54, %arg26) {eps = 9.99999974E-6 : f32} : (tensor<?x16xbf16, ["T", "16"]>, tensor<16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
    %56 = "npu.matmul"(%55, %arg27) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x16xbf16, ["T", "16"]>, tensor<50x16xbf16>) -> tensor<?x50xbf16, ["T", "50"]>
    return %56 : tensor<?x50xbf16, ["T", "50"]>
  }
}
