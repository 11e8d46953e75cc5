// RUN: npu-opt %s --split-input-file --verify-diagnostics
// What the verifiers of npu_tile refuse, at the operation's place.

// expected-error@+1 {{'npu_tile.alloc' op needs static extents above 0, got memref<?x4xf32, "spm">}}
%0 = "npu_tile.alloc"() : () -> memref<?x4xf32, "spm">

// -----

// expected-error@+1 {{'npu_tile.alloc' op elements must be one of f32, bf16, i64, i32, i8, bool, got memref<4xf64, "spm">}}
%0 = "npu_tile.alloc"() : () -> memref<4xf64, "spm">

// -----

// expected-error@+1 {{'npu_tile.alloc' op needs memory space "spm" or "acc", got memref<4xf32, "hbm">}}
%0 = "npu_tile.alloc"() : () -> memref<4xf32, "hbm">

// -----

// expected-error@+1 {{'npu_tile.alloc' op the accumulator holds f32, got memref<4xbf16, "acc">}}
%0 = "npu_tile.alloc"() : () -> memref<4xbf16, "acc">

// -----

%c = arith.constant 0 : i64
// expected-error@+1 {{'npu_tile.load_scalar' op dtype must be one of i64, i32, got "f32"}}
%0 = "npu_tile.load_scalar"(%c) {dtype = "f32"} : (i64) -> i64

// -----

%c = arith.constant 0 : i64
// expected-error@+1 {{'npu_tile.set_flag' op queue must be one of load, store, matrix, vector, got "seq"}}
"npu_tile.set_flag"(%c) {queue = "seq"} : (i64) -> ()

// -----

%c = arith.constant 0 : i64
// expected-error@+1 {{'npu_tile.slot' op must stand directly in an scf.for}}
%0 = "npu_tile.slot"(%c) {loop = 0 : i64, slots = 2 : i64} : (i64) -> i64

// -----

%c = arith.constant 1 : i64
%0 = "npu_tile.alloc"() : () -> memref<4xf32, "spm">
// expected-error@+1 {{'npu_tile.v_fill' op requires attribute 'value'}}
"npu_tile.v_fill"(%0, %c, %c, %c, %c) {dst_strides = array<i64: 0, 0, 4>} : (memref<4xf32, "spm">, i64, i64, i64, i64) -> ()

// -----

%c = arith.constant 1 : i64
%0 = "npu_tile.alloc"() : () -> memref<4xf32, "spm">
// expected-error@+1 {{'npu_tile.v_fill' op dst_strides must be three byte strides, array<i64: s0, s1, s2>}}
"npu_tile.v_fill"(%0, %c, %c, %c, %c) {dst_strides = array<i64: 0, 4>, value = 0.0 : f32} : (memref<4xf32, "spm">, i64, i64, i64, i64) -> ()

// -----

%c0 = arith.constant 0 : i64
%c1 = arith.constant 1 : i64
%c5 = arith.constant 5 : i64
%0 = "npu_tile.alloc"() : () -> memref<4xf32, "spm">
// expected-error@+1 {{'npu_tile.v_fill' op dst touches bytes [0, 20) of a buffer of 16 bytes, memref<4xf32, "spm">}}
"npu_tile.v_fill"(%0, %c0, %c1, %c1, %c5) {dst_strides = array<i64: 0, 0, 4>, value = 0.0 : f32} : (memref<4xf32, "spm">, i64, i64, i64, i64) -> ()

// -----

%c0 = arith.constant 0 : i64
%c1 = arith.constant 1 : i64
%0 = "npu_tile.alloc"() : () -> memref<4xf32, "spm">
// expected-error@+1 {{'npu_tile.v_reduce' op op must be one of sum, sumsq, max, min, argmax, got "mean"}}
"npu_tile.v_reduce"(%0, %c0, %0, %c0, %c1, %c1, %c1) {op = "mean", dst_strides = array<i64: 0, 0, 4>, a_strides = array<i64: 0, 0, 4>} : (memref<4xf32, "spm">, i64, memref<4xf32, "spm">, i64, i64, i64, i64) -> ()

// -----

%c0 = arith.constant 0 : i64
%0 = "npu_tile.alloc"() : () -> memref<16x16xf32, "spm">
// expected-error@+1 {{'npu_tile.mx_load' op dtype is "bf16", but src holds f32}}
"npu_tile.mx_load"(%0, %c0, %c0, %c0, %c0) {dtype = "bf16", layout = "kn"} : (memref<16x16xf32, "spm">, i64, i64, i64, i64) -> ()

// -----

%c0 = arith.constant 0 : i64
%0 = "npu_tile.alloc"() : () -> memref<16x16xf32, "spm">
// expected-error@+1 {{'npu_tile.mx_mul' op dst must lie in acc, got memref<16x16xf32, "spm">}}
"npu_tile.mx_mul"(%0, %c0, %0, %c0, %c0, %c0) {dst_stride = 64 : i64, src_stride = 64 : i64} : (memref<16x16xf32, "spm">, i64, memref<16x16xf32, "spm">, i64, i64, i64) -> ()
