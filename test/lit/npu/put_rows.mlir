// RUN: npu-opt %s --pretty | FileCheck %s

// CHECK: %[[Y:.*]] = npu.put_rows %x, %rows, %values {leading = 1} : bf16[T, 64]
// CHECK: npu.put_rows %pages, %rows, %tokens {leading = 2} : i32[P, 16, 2, 8]
func.func @main(%x: tensor<?x64xbf16, ["T", "64"]> {npu.input = "x"}, %rows: tensor<?xi64, ["M"]> {npu.input = "rows"}, %values: tensor<?x64xbf16, ["M", "64"]> {npu.input = "values"}, %pages: tensor<?x16x2x8xi32, ["P", "16", "2", "8"]> {npu.input = "pages"}, %tokens: tensor<?x2x8xi32, ["M", "2", "8"]> {npu.input = "tokens"}) -> (tensor<?x64xbf16, ["T", "64"]>, tensor<?x16x2x8xi32, ["P", "16", "2", "8"]>) {
  %0 = "npu.put_rows"(%x, %rows, %values) {leading = 1} : (tensor<?x64xbf16, ["T", "64"]>, tensor<?xi64, ["M"]>, tensor<?x64xbf16, ["M", "64"]>) -> tensor<?x64xbf16, ["T", "64"]>
  %1 = "npu.put_rows"(%pages, %rows, %tokens) {leading = 2} : (tensor<?x16x2x8xi32, ["P", "16", "2", "8"]>, tensor<?xi64, ["M"]>, tensor<?x2x8xi32, ["M", "2", "8"]>) -> tensor<?x16x2x8xi32, ["P", "16", "2", "8"]>
  return %0, %1 : tensor<?x64xbf16, ["T", "64"]>, tensor<?x16x2x8xi32, ["P", "16", "2", "8"]>
}
