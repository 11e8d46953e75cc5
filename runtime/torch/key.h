// What a call is looked up by: words that tell everything its program depends on.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/ScalarType.h>
#include <c10/util/SmallVector.h>

#include <cstdint>

namespace opennpu::torch_device {

// Whether the elements lie one behind the other in the order of the dimensions.
bool row_major(c10::IntArrayRef sizes, c10::IntArrayRef strides);

class Key {
 public:
  void add(uint64_t word) { words_.push_back(word); }

  // A number, string, None, or list of them; false for what a program cannot be compiled for.
  [[nodiscard]] bool add(const c10::IValue& value);

  // A tensor: of each dimension only whether its size is 0, 1 or more; strides, unless row-major,
  // by whether they are 0, 1 or anything else.
  void add(c10::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides);

  bool operator==(const Key& other) const { return words_ == other.words_; }

  struct Hash {
    size_t operator()(const Key& key) const;
  };

 private:
  c10::SmallVector<uint64_t, 24> words_;
};

}  // namespace opennpu::torch_device
