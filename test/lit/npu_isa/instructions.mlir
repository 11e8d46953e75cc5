// RUN: npu-opt %s > %t && npu-opt %t | diff - %t && FileCheck %s < %t
// Every instruction parses, verifies, and prints as it was.
// CHECK: "npu_isa.program"
// CHECK: "npu_isa.s_mov"
// CHECK: "npu_isa.s_alu"
// CHECK: "npu_isa.s_ld"
// CHECK: "npu_isa.s_arg"
// CHECK: "npu_isa.loop"
// CHECK: "npu_isa.end_loop"
// CHECK: "npu_isa.if"
// CHECK: "npu_isa.end_if"
// CHECK: "npu_isa.set_flag"
// CHECK: "npu_isa.wait_flag"
// CHECK: "npu_isa.barrier"
// CHECK: "npu_isa.halt"
// CHECK: "npu_isa.dma_load"
// CHECK: "npu_isa.dma_store"
// CHECK: "npu_isa.dma_gather"
// CHECK: "npu_isa.dma_scatter"
// CHECK: "npu_isa.mx_load"
// CHECK: "npu_isa.mx_mul"
// CHECK: "npu_isa.v_fill"
// CHECK: "npu_isa.v_iota"
// CHECK: "npu_isa.v_unary"
// CHECK: "npu_isa.v_binary"
// CHECK: "npu_isa.v_select"
// CHECK: "npu_isa.v_reduce"
// CHECK: "npu_isa.v_softmax_step"
// CHECK: "npu_isa.v_transpose"
// CHECK: "npu_isa.v_gather"

module {
  "npu_isa.program"() ({
    "npu_isa.s_mov"() {a = array<i64: 8, 3, 64>, rd = 2 : i64} : () -> ()
    "npu_isa.s_alu"() {a = array<i64: 8, 3, 64>, b = array<i64: 8, 3, 64>, op = "add", rd = 2 : i64} : () -> ()
    "npu_isa.s_ld"() {addr = array<i64: 8, 3, 64>, dtype = "i64", rd = 2 : i64} : () -> ()
    "npu_isa.s_arg"() {index = 4 : i64, rd = 2 : i64} : () -> ()
    "npu_isa.loop"() {hi = array<i64: 8, 3, 64>, lo = array<i64: 8, 3, 64>, rd = 2 : i64, step = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.end_loop"() : () -> ()
    "npu_isa.if"() {cond = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.end_if"() : () -> ()
    "npu_isa.set_flag"() {flag = array<i64: 8, 3, 64>, queue = "load"} : () -> ()
    "npu_isa.wait_flag"() {flag = array<i64: 8, 3, 64>, queue = "load"} : () -> ()
    "npu_isa.barrier"() : () -> ()
    "npu_isa.halt"() : () -> ()
    "npu_isa.dma_load"() {bytes = array<i64: 8, 3, 64>, ds0 = array<i64: 8, 3, 64>, ds1 = array<i64: 8, 3, 64>, ds2 = array<i64: 8, 3, 64>, dst = array<i64: 8, 3, 64>, n0 = array<i64: 8, 3, 64>, n1 = array<i64: 8, 3, 64>, n2 = array<i64: 8, 3, 64>, src = array<i64: 8, 3, 64>, share = array<i64: 8, 3, 64>, share_stride = array<i64: 8, 3, 64>, ss0 = array<i64: 8, 3, 64>, ss1 = array<i64: 8, 3, 64>, ss2 = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.dma_store"() {bytes = array<i64: 8, 3, 64>, ds0 = array<i64: 8, 3, 64>, ds1 = array<i64: 8, 3, 64>, ds2 = array<i64: 8, 3, 64>, dst = array<i64: 8, 3, 64>, n0 = array<i64: 8, 3, 64>, n1 = array<i64: 8, 3, 64>, n2 = array<i64: 8, 3, 64>, src = array<i64: 8, 3, 64>, ss0 = array<i64: 8, 3, 64>, ss1 = array<i64: 8, 3, 64>, ss2 = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.dma_gather"() {count = array<i64: 8, 3, 64>, dst = array<i64: 8, 3, 64>, dst_index_stride = array<i64: 8, 3, 64>, dst_row_stride = array<i64: 8, 3, 64>, group = array<i64: 8, 3, 64>, group_stride = array<i64: 8, 3, 64>, index = array<i64: 8, 3, 64>, index_dtype = "i64", index_stride = array<i64: 8, 3, 64>, limit = array<i64: 8, 3, 64>, row_bytes = array<i64: 8, 3, 64>, row_stride = array<i64: 8, 3, 64>, rows = array<i64: 8, 3, 64>, src = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.dma_scatter"() {count = array<i64: 8, 3, 64>, dst = array<i64: 8, 3, 64>, group = array<i64: 8, 3, 64>, group_stride = array<i64: 8, 3, 64>, index = array<i64: 8, 3, 64>, index_dtype = "i64", index_stride = array<i64: 8, 3, 64>, limit = array<i64: 8, 3, 64>, row_bytes = array<i64: 8, 3, 64>, row_stride = array<i64: 8, 3, 64>, rows = array<i64: 8, 3, 64>, src = array<i64: 8, 3, 64>, src_index_stride = array<i64: 8, 3, 64>, src_row_stride = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.mx_load"() {dtype = "bf16", k = array<i64: 8, 3, 64>, layout = "packed", n = array<i64: 8, 3, 64>, src = array<i64: 8, 3, 64>, stride = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.mx_mul"() {accumulate = array<i64: 8, 3, 64>, dst = array<i64: 8, 3, 64>, dst_stride = 4 : i64, rows = array<i64: 8, 3, 64>, src = array<i64: 8, 3, 64>, src_stride = 4 : i64} : () -> ()
    "npu_isa.v_fill"() {d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], is_float = 4 : i64, value = 5.000000e-01 : f32} : () -> ()
    "npu_isa.v_iota"() {base = array<i64: 8, 3, 64>, d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], step0 = array<i64: 8, 3, 64>, step1 = array<i64: 8, 3, 64>, step2 = array<i64: 8, 3, 64>} : () -> ()
    "npu_isa.v_unary"() {a = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], op = "copy"} : () -> ()
    "npu_isa.v_binary"() {a = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], b = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], op = "add"} : () -> ()
    "npu_isa.v_select"() {a = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], b = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], cond = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4]} : () -> ()
    "npu_isa.v_reduce"() {a = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], op = "sum"} : () -> ()
    "npu_isa.v_softmax_step"() {alpha = array<i64: 8, 3, 64>, cap = 5.000000e-01 : f32, causal = 4 : i64, group = 4 : i64, key = array<i64: 8, 3, 64>, l = array<i64: 8, 3, 64>, m = array<i64: 8, 3, 64>, n = array<i64: 8, 3, 64>, p = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], pos = array<i64: 8, 3, 64>, rows = array<i64: 8, 3, 64>, s = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], scale = 5.000000e-01 : f32, window = 4 : i64} : () -> ()
    "npu_isa.v_transpose"() {a = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4]} : () -> ()
    "npu_isa.v_gather"() {a = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], d0 = array<i64: 8, 3, 64>, d1 = array<i64: 8, 3, 64>, d2 = array<i64: 8, 3, 64>, dst = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], index = ["spm", "f32", array<i64: 64, 4, 1>, 0, 64, 4], limit = array<i64: 8, 3, 64>} : () -> ()
  }) : () -> ()
}
