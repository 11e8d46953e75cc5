#include "key.h"

#include <bit>
#include <cstring>
#include <string_view>

namespace opennpu::torch_device {

namespace {

// The kind of a value, before its words, so that no two values have the same words.
enum Tag : uint64_t { kNone = 1, kBool, kInt, kDouble, kString, kList, kTensor };

uint64_t size_class(int64_t size) { return size < 2 ? static_cast<uint64_t>(size) : 2; }

}  // namespace

bool row_major(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  int64_t expected = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] != 1 && strides[i] != expected) return false;
    expected *= sizes[i];
  }
  return true;
}

bool Key::add(const c10::IValue& value) {
  if (value.isNone()) {
    add(kNone);
  } else if (value.isBool()) {
    add(kBool), add(value.toBool());
  } else if (value.isInt()) {
    add(kInt), add(static_cast<uint64_t>(value.toInt()));
  } else if (value.isDouble()) {
    add(kDouble), add(std::bit_cast<uint64_t>(value.toDouble()));
  } else if (value.isString()) {
    const std::string_view text = value.toStringView();
    add(kString), add(text.size());
    for (size_t i = 0; i < text.size(); i += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + i, std::min(sizeof word, text.size() - i));
      add(word);
    }
  } else if (value.isList()) {
    const auto items = value.toListRef();
    add(kList), add(items.size());
    for (const c10::IValue& item : items) {
      if (!add(item)) return false;
    }
  } else {
    // A device says nothing: a program is loaded for the device of its tensors.
    return value.isDevice();
  }
  return true;
}

void Key::add(c10::ScalarType dtype, c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  constexpr size_t kPerWord = 16;  // dimensions of four bits
  const bool dense = row_major(sizes, strides);
  add(kTensor | uint64_t(dense) << 8 | static_cast<uint64_t>(dtype) << 16 | sizes.size() << 32);
  for (size_t begin = 0; begin < sizes.size(); begin += kPerWord) {
    uint64_t word = 0;
    for (size_t i = begin; i < std::min(begin + kPerWord, sizes.size()); ++i) {
      const uint64_t stride = dense || sizes[i] == 1 ? 0 : size_class(strides[i]);
      word = word << 4 | size_class(sizes[i]) << 2 | stride;
    }
    add(word);
  }
}

size_t Key::Hash::operator()(const Key& key) const {
  uint64_t hash = key.words_.size();
  for (const uint64_t word : key.words_) {  // the mixing step of MurmurHash64A
    uint64_t mixed = word * 0xc6a4a7935bd1e995u;
    mixed ^= mixed >> 47;
    hash = (hash ^ mixed * 0xc6a4a7935bd1e995u) * 0xc6a4a7935bd1e995u;
  }
  return hash ^ hash >> 47;
}

}  // namespace opennpu::torch_device
