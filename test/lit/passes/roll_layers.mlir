// RUN: npu-opt %s --npu-roll-layers | FileCheck %s
// RUN: npu-opt %s --npu-roll-layers --mlir-print-debuginfo | FileCheck %s --check-prefix=LOC

// LOC: loc("layers.*.proj")

// One carried value, a stacked weight that is no argument any more, slots from outside, layers
// 2 to 4 as 2 + the index, and * for the number in the module path.
// CHECK-LABEL: func.func @layers(
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}{{.*}}, %[[S:[a-z0-9]+]]: tensor<?xi64, ["T"]> {npu.input = "s"}) ->
// CHECK-NEXT: %[[Y:[a-z0-9]+]] = "npu.repeat"(%[[X]]) ({
// CHECK-NEXT: ^bb0(%{{.*}}: i64, %[[C:[a-z0-9]+]]: tensor<?x8xf32, ["T", "8"]>, %[[W:[a-z0-9]+]]: tensor<8x8xf32>
// CHECK-NEXT: "npu.kv_write"(%[[C]], %[[C]], %[[S]]) {{.*}}layer = 2 : i64
// CHECK-NEXT: %[[M:[a-z0-9]+]] = "npu.matmul"(%[[C]], %[[W]])
// CHECK-NEXT: %[[R:[a-z0-9]+]] = "npu.binary"(%[[C]], %[[M]])
// CHECK-NEXT: "npu.yield"(%[[R]])
// CHECK-NEXT: {count = 3 : i64, {{.*}}params = {{\[\[}}"layers.0.w", "layers.1.w", "layers.2.w"]]
// CHECK-NEXT: return %[[Y]]
func.func @layers(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %s: tensor<?xi64, ["T"]> {npu.input = "s"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}, %w2: tensor<8x8xf32> {npu.param = "layers.2.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  "npu.kv_write"(%x, %x, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 2 : i64, v_head_dim = 4 : i64} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]> loc("layers.0.proj")
  %r0 = "npu.binary"(%x, %m0) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  "npu.kv_write"(%r0, %r0, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 3 : i64, v_head_dim = 4 : i64} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  %m1 = "npu.matmul"(%r0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]> loc("layers.1.proj")
  %r1 = "npu.binary"(%r0, %m1) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  "npu.kv_write"(%r1, %r1, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 4 : i64, v_head_dim = 4 : i64} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  %m2 = "npu.matmul"(%r1, %w2) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]> loc("layers.2.proj")
  %r2 = "npu.binary"(%r1, %m2) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %r2 : tensor<?x8xf32, ["T", "8"]>
}

// The run starts behind the first norm: the layer is from product to norm, the hidden state and
// the residual are carried.
// CHECK-LABEL: func.func @first_norm_differs(
// CHECK: %[[N:[a-z0-9]+]] = "npu.rms_norm"(%[[X:[a-z0-9]+]], 
// CHECK-NEXT: "npu.repeat"(%[[N]], %[[X]]) ({
// CHECK-NEXT: ^bb0(%{{.*}}: i64, %[[A:[a-z0-9]+]]: tensor<?x8xf32, ["T", "8"]>, %[[R:[a-z0-9]+]]: tensor<?x8xf32, ["T", "8"]>, %[[W:[a-z0-9]+]]: tensor<8x8xf32>, %[[H:[a-z0-9]+]]: tensor<8xf32>
// CHECK-NEXT: %[[M:[a-z0-9]+]] = "npu.matmul"(%[[A]], %[[W]])
// CHECK-NEXT: %[[B:[a-z0-9]+]]:2 = "npu.add_rms_norm"(%[[M]], %[[R]], %[[H]])
// CHECK-NEXT: "npu.yield"(%[[B]]#0, %[[B]]#1)
// CHECK: npu.unary
func.func @first_norm_differs(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %g: tensor<8xf32> {npu.param = "first"}, %h0: tensor<8xf32> {npu.param = "norm.0"}, %h1: tensor<8xf32> {npu.param = "norm.1"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  %n = "npu.rms_norm"(%x, %g) {eps = 1.0e-5 : f32} : (tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %m0 = "npu.matmul"(%n, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %a:2 = "npu.add_rms_norm"(%m0, %x, %h0) {eps = 1.0e-5 : f32} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>)
  %m1 = "npu.matmul"(%a#0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %b:2 = "npu.add_rms_norm"(%m1, %a#1, %h1) {eps = 1.0e-5 : f32} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>)
  %n1 = "npu.unary"(%b#0) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %n1 : tensor<?x8xf32, ["T", "8"]>
}

// A parameter that is used elsewhere too stays an argument.
// CHECK-LABEL: func.func @tied_weight(
// CHECK-SAME: {npu.input = "x"}
// CHECK-SAME: %[[W:[a-z0-9]+]]: tensor<8x8xf32> {npu.param = "layers.1.w"}
// CHECK: %[[Y:[a-z0-9]+]] = "npu.repeat"
// CHECK: params = {{\[\[}}"layers.0.w", "layers.1.w", "layers.2.w"]]
// CHECK-NEXT: "npu.matmul"(%[[Y]], %[[W]])
func.func @tied_weight(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}, %w2: tensor<8x8xf32> {npu.param = "layers.2.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r0 = "npu.unary"(%m0) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %m1 = "npu.matmul"(%r0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r1 = "npu.unary"(%m1) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %m2 = "npu.matmul"(%r1, %w2) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r2 = "npu.unary"(%m2) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %h = "npu.matmul"(%r2, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  return %h : tensor<?x8xf32, ["T", "8"]>
}

// A parameter that all layers share is used from outside.
// CHECK-LABEL: func.func @shared_parameter(
// CHECK-SAME: %[[G:[a-z0-9]+]]: tensor<8x8xf32> {npu.param = "shared"}
// CHECK: "npu.repeat"
// CHECK-NEXT: ^bb0(%{{.*}}: i64, %[[C:[a-z0-9]+]]: tensor<?x8xf32, ["T", "8"]>, %[[W:[a-z0-9]+]]: tensor<8x8xf32>
// CHECK-NEXT: %[[A:[a-z0-9]+]] = "npu.matmul"(%[[C]], %[[W]])
// CHECK-NEXT: "npu.matmul"(%[[A]], %[[G]])
func.func @shared_parameter(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %g: tensor<8x8xf32> {npu.param = "shared"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  %a = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %b = "npu.matmul"(%a, %g) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r0 = "npu.unary"(%b) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %c = "npu.matmul"(%r0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %d = "npu.matmul"(%c, %g) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r1 = "npu.unary"(%d) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %r1 : tensor<?x8xf32, ["T", "8"]>
}

// What depends on no parameter is made once, before the layers.
// CHECK-LABEL: func.func @shared_values_move_out(
// CHECK: %[[K:[a-z0-9]+]] = "npu.constant"
// CHECK-NEXT: "npu.repeat"
// CHECK: "npu.binary"(%{{.*}}, %[[K]])
// CHECK-NOT: npu.constant
// CHECK: return
func.func @shared_values_move_out(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %s: tensor<?xi64, ["T"]> {npu.input = "s"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %c0 = "npu.constant"() {value = 2.0 : f32} : () -> tensor<f32>
  %r0 = "npu.binary"(%m0, %c0) {op = "mul"} : (tensor<?x8xf32, ["T", "8"]>, tensor<f32>) -> tensor<?x8xf32, ["T", "8"]>
  %m1 = "npu.matmul"(%r0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %c1 = "npu.constant"() {value = 2.0 : f32} : () -> tensor<f32>
  %r1 = "npu.binary"(%m1, %c1) {op = "mul"} : (tensor<?x8xf32, ["T", "8"]>, tensor<f32>) -> tensor<?x8xf32, ["T", "8"]>
  return %r1 : tensor<?x8xf32, ["T", "8"]>
}

// A fused kernel reads the values of its layer.
// CHECK-LABEL: func.func @kernels_inside(
// CHECK: "npu.repeat"
// CHECK: %[[M:[a-z0-9]+]] = "npu.matmul"
// CHECK-NEXT: %[[F:[a-z0-9]+]] = "npu.fused"() ({
// CHECK-NEXT: "npu.unary"(%[[M]])
// CHECK: "npu.yield"(%[[F]])
// CHECK-NEXT: {{.*}}count = 2
func.func @kernels_inside(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r0 = "npu.fused"() ({
    %e = "npu.unary"(%m0) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
    %t = "npu.unary"(%e) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
    "npu.yield"(%t) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x8xf32, ["T", "8"]>) -> ()
  }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<?x8xf32, ["T", "8"]>
  %m1 = "npu.matmul"(%r0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r1 = "npu.fused"() ({
    %e = "npu.unary"(%m1) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
    %t = "npu.unary"(%e) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
    "npu.yield"(%t) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x8xf32, ["T", "8"]>) -> ()
  }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<?x8xf32, ["T", "8"]>
  return %r1 : tensor<?x8xf32, ["T", "8"]>
}

// The two halves differ in an attribute.
// CHECK-LABEL: func.func @no_repetition(
// CHECK-NOT: npu.repeat
// CHECK: return
func.func @no_repetition(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r0 = "npu.unary"(%m0) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %m1 = "npu.matmul"(%r0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r1 = "npu.unary"(%m1) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %r1 : tensor<?x8xf32, ["T", "8"]>
}

// Equal ops side by side are no layers: both results are needed.
// CHECK-LABEL: func.func @parallel(
// CHECK-NOT: npu.repeat
// CHECK: return
func.func @parallel(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) {
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %m1 = "npu.matmul"(%x, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  return %m0, %m1 : tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>
}

// A repeated function without parameters is no layer.
// CHECK-LABEL: func.func @no_parameters(
// CHECK-NOT: npu.repeat
// CHECK: return
func.func @no_parameters(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}) -> tensor<?x8xf32, ["T", "8"]> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.unary"(%0) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.unary"(%1) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %3 = "npu.unary"(%2) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %3 : tensor<?x8xf32, ["T", "8"]>
}

// The layer numbers must go up by one.
// CHECK-LABEL: func.func @layers_that_do_not_count(
// CHECK-NOT: npu.repeat
// CHECK: return
func.func @layers_that_do_not_count(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %s: tensor<?xi64, ["T"]> {npu.input = "s"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  "npu.kv_write"(%x, %x, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, v_head_dim = 4 : i64} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  "npu.kv_write"(%m0, %m0, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 2 : i64, v_head_dim = 4 : i64} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  %m1 = "npu.matmul"(%m0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  return %m1 : tensor<?x8xf32, ["T", "8"]>
}

// A value from the middle that is needed at the end parts the layers into two loops.
// CHECK-LABEL: func.func @skip_connection(
// CHECK: %[[A:[a-z0-9]+]] = "npu.repeat"
// CHECK: params = {{\[\[}}"layers.0.w", "layers.1.w"]]
// CHECK: %[[B:[a-z0-9]+]] = "npu.repeat"(%[[A]])
// CHECK: params = {{\[\[}}"layers.2.w", "layers.3.w"]]
// CHECK: "npu.binary"(%[[A]], %[[B]])
func.func @skip_connection(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}, %w2: tensor<8x8xf32> {npu.param = "layers.2.w"}, %w3: tensor<8x8xf32> {npu.param = "layers.3.w"}) -> tensor<?x8xf32, ["T", "8"]> {
  %m0 = "npu.matmul"(%x, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %m1 = "npu.matmul"(%m0, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %m2 = "npu.matmul"(%m1, %w2) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %m3 = "npu.matmul"(%m2, %w3) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %r = "npu.binary"(%m1, %m3) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %r : tensor<?x8xf32, ["T", "8"]>
}
